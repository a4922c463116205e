//! One file an op family: against PyTorch's numbers, against finite differences, at tile edges.

mod adam;
mod confusion;
mod conv;
mod head;
pub mod iic;
mod kmeans;
mod norm;
mod softmax;
mod stem;
pub mod top;
mod view;
