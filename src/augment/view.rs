//! The renderings of an image that methods ask for.

/// The rendering of an image that the network gets. PiCIE compares two views of each image: they
/// differ in colours, and the geometric change is applied to the first one's input but to the
/// second one's features (paper, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum View {
    /// PiCIE's first view: photometric change 1, and the geometric change of the input.
    First,
    /// The first view without its photometric change (see `Recipe::bug_plain_view1`).
    FirstUnchanged,
    /// PiCIE's second view: photometric change 2. The geometric change is made to its features
    /// instead (see [`Feeder::feature_crops`](crate::augment::Feeder::feature_crops)).
    Second,
    /// The whole image, resized and not changed otherwise.
    Plain,
    /// IIC's first view: a window of the input, neither mirrored nor otherwise changed.
    Window,
    /// IIC's second view: the same window with photometric change 2, mirrored if the draw says so.
    /// Its features are mirrored back.
    Mirrored,
    /// The whole image with photometric change 1.
    Photometric,
}

impl View {
    /// The number (0 or 1) of the photometric draw that it uses. `None` if colours stay.
    pub(super) fn photo(self) -> Option<usize> {
        match self {
            View::First | View::Photometric => Some(0),
            View::Second | View::Mirrored => Some(1),
            View::FirstUnchanged | View::Plain | View::Window => None,
        }
    }

    /// Whether the input is a window of the image.
    pub(super) fn crops(self) -> bool {
        matches!(self, View::First | View::FirstUnchanged | View::Window | View::Mirrored)
    }
}
