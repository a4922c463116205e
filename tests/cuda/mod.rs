//! The CUDA engine against the CPU engine, op family by op family, for every element type of
//! activations: on the GPU where there is one, else on the software GPU.

mod adam;
mod confusion;
mod conv;
mod engines;
mod head;
mod iic;
mod kmeans;
mod memory;
mod norm;
mod registers;
mod softmax;
mod stem;
mod step;
mod top;
mod view;
