//! One file an op family: against PyTorch's numbers, against finite differences, at tile edges.

mod conv;
mod norm;
mod stem;
mod view;
