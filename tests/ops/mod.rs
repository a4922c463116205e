//! One file an op family: its cases, and all that is checked of them. The CPU engine against
//! PyTorch's numbers, plain loops and finite differences; CUDA against the CPU engine in every type
//! of activations, on the GPU or the software GPU; what the doors refuse.

mod adam;
mod confusion;
pub mod conv;
mod head;
mod iic;
mod kmeans;
mod norm;
mod softmax;
mod stem;
mod top;
mod view;
