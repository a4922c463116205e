//! What the user sees of a run: bars while it works, tables and pictures when it is done. Plain
//! data in, text and pictures out; nothing here decides anything.

pub mod bench;
pub mod contact;
pub mod events;
pub mod html;
pub mod neighbors;
pub mod perclass;
pub mod pictures;
pub mod plot;
pub mod progress;
pub mod sheet;
pub mod table;
pub mod text;
pub mod unlabelled;
pub mod version;

pub use crate::data::palette;
pub use perclass::EvalReport;
pub use progress::{PhaseBar, Progress, time};
