//! Any folder of images as the plain one, for drawings and the like that it takes for label maps.

use super::{DataLayout, folder};
use crate::data::files;

pub static LAYOUT: DataLayout = DataLayout {
    name: "every-image",
    files: "Any folder of images, all of which are learned from, even what looks like label maps",
    detect: |_| false,
    list: |root, _, _, account| Ok(folder::items(root, files::images(root, account)?)),
    ..folder::LAYOUT
};
