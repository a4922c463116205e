//! Class names and label tables, as published.

/// Coarse class of each COCO-Stuff fine id (the PNG value 0..=181). Source: the COCO-Stuff
/// hierarchy (Caesar et al., CVPR 2018) as IIC and PiCIE number its 27 coarse classes; its 182
/// bytes have SHA-256 5b6c6ce82fb97a8c2d29cc61a451953c…
pub const COCO_FINE_TO_COARSE: [u8; 182] = [
    9, 11, 11, 11, 11, 11, 11, 11, 11, 8, 8, 8, 8, 8, 8, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 6, 6, 6, 6,
    6, 6, 6, 6, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 5, 5, 5, 5, 5, 5, 5, 5, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4, 4,
    4, 4, 17, 17, 22, 20, 20, 22, 15, 25, 16, 13, 12, 12, 17, 17, 23, 15, 15, 17, 15, 21, 15, 25,
    13, 13, 13, 13, 13, 22, 26, 14, 14, 15, 22, 21, 21, 24, 20, 22, 15, 17, 16, 15, 22, 24, 21, 17,
    25, 16, 21, 17, 22, 16, 21, 21, 25, 21, 26, 21, 24, 20, 17, 14, 21, 26, 15, 23, 20, 21, 24, 15,
    24, 22, 25, 15, 20, 17, 17, 22, 14, 18, 18, 18, 18, 18, 18, 18, 26, 26, 19, 19, 24,
];

/// 12 coarse thing classes, then 15 coarse stuff classes.
pub const COCO_27: [&str; 27] = [
    "electronic",
    "appliance",
    "food-things",
    "furniture-things",
    "indoor",
    "kitchen",
    "accessory",
    "animal",
    "outdoor",
    "person",
    "sports",
    "vehicle",
    "ceiling",
    "floor",
    "food-stuff",
    "furniture-stuff",
    "raw-material",
    "textile",
    "wall",
    "window",
    "building",
    "ground",
    "plant",
    "sky",
    "solid",
    "structural",
    "water",
];

/// The first stuff class of `COCO_27`; the things come before it.
pub const COCO_STUFF_FROM: usize = 12;

/// COCO-Stuff-3 in IIC's order, and their numbers among the 27.
pub const COCO_3: [&str; 3] = ["sky", "plant", "ground"];
pub const COCO_3_OF_27: [usize; 3] = [23, 22, 21];

/// Potsdam's classes and their colours in the published labels, in IIC's order.
pub const POTSDAM_6: [&str; 6] = ["road", "building", "low vegetation", "tree", "car", "clutter"];
pub const POTSDAM_COLOURS: [[u8; 3]; 6] =
    [[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0], [255, 0, 0]];

/// IIC's three classes, and which of them each of the six is.
pub const POTSDAM_3: [&str; 3] =
    ["roads and cars", "buildings and clutter", "vegetation and trees"];
pub const POTSDAM_6_TO_3: [u8; 6] = [0, 1, 2, 2, 0, 1];

/// Cityscapes labelIds 7..=33, in order: class = labelId − 7.
pub const CITYSCAPES_27: [&str; 27] = [
    "road",
    "sidewalk",
    "parking",
    "rail track",
    "building",
    "wall",
    "fence",
    "guard rail",
    "bridge",
    "tunnel",
    "pole",
    "polegroup",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "caravan",
    "trailer",
    "train",
    "motorcycle",
    "bicycle",
];
