//! Which backbone the tensors of a file belong to.

use std::collections::BTreeSet;

use crate::net::{Architecture, Backbone, expected};

/// The backbone whose residual blocks have exactly these convolutions, by name and shape, in the
/// stages that `tensors` has blocks of.
pub fn recognise<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>,
) -> Option<&'static Backbone> {
    let found = convolutions(tensors);
    let same = |backbone: &'static Backbone, levels: usize| {
        let all = expected(Architecture { levels, ..Architecture::of(backbone) });
        convolutions(all.iter().map(|(name, shape)| (&**name, &**shape))) == found
    };
    Backbone::ALL.into_iter().find(|backbone| (1..=4).any(|levels| same(backbone, levels)))
}

/// Name and shape of every convolution inside of a stage.
fn convolutions<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>,
) -> BTreeSet<(String, Vec<usize>)> {
    tensors
        .into_iter()
        .filter(|(name, shape)| name.starts_with("layer") && shape.len() == 4)
        .map(|(name, shape)| (name.to_string(), shape.to_vec()))
        .collect()
}
