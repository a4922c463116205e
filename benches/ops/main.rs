//! One file an op family.

mod adam;
mod confusion;
mod head;
mod kmeans;

criterion::criterion_group!(ops, head::bench, kmeans::bench, adam::bench, confusion::bench);
criterion::criterion_main!(ops);
