//! Criterion benches, one file an op family.

mod view;

criterion::criterion_group!(ops, view::bench);
criterion::criterion_main!(ops);
