//! Unsupervised semantic segmentation: PiCIE (Cho et al., CVPR 2021) and its baselines, trained and
//! run by hand-written kernels on a CPU or an NVIDIA GPU.
//!
//! ```text
//! cli report                     commands and arguments; what is printed and written for people
//! export                         trained networks for other programs
//! train                          the loop over epochs: phases, checkpoints, the table of epochs
//! method                         the learning methods: their passes over the data and their steps
//! recipe cluster                 the methods' hyperparameters; their k-means
//! eval augment data              scores; random changes of pictures; data sets and stored images
//! net                            the network (ResNet + FPN), its parameters and their files
//! device                         memory and ops: ops/ (contracts), cpu/ (the reference), cuda/
//! base                           errors, random numbers, files, what is said, the request to stop
//! ```
//! A floor imports from floors below it only; `tests/house.rs` checks that.

pub mod augment;
pub mod base;
pub mod cli;
pub mod cluster;
pub mod data;
pub mod device;
pub mod eval;
pub mod export;
pub mod method;
pub mod net;
pub mod recipe;
pub mod report;
pub mod train;
