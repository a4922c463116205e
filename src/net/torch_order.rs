//! The order of a convolution's weights: (k, r, r, c′) in the engine's memory, c′ ≥ c what it has
//! room for, with zeros there; (k, c, r, r) in torch's files. Vectors are the same in both.

/// A tensor of this shape in torch's order as the `len` numbers of the engine's memory.
pub fn to_device(len: usize, shape: &[usize], from: &[f32]) -> Vec<f32> {
    let mut to = vec![0.0; len];
    for_each_weight(len, shape, |memory, torch| to[memory] = from[torch]);
    to
}

/// What lies in the engine's memory as a tensor of this shape in torch's order.
pub fn to_torch(from: &[f32], shape: &[usize]) -> Vec<f32> {
    let mut to = vec![0.0; shape.iter().product()];
    for_each_weight(from.len(), shape, |memory, torch| to[torch] = from[memory]);
    to
}

fn for_each_weight(len: usize, shape: &[usize], mut each: impl FnMut(usize, usize)) {
    let &[k, c, r, _] = shape else { return (0..len).for_each(|i| each(i, i)) };
    let taps = r * r;
    let padded = len / (k * taps);
    for ko in 0..k {
        for ci in 0..c {
            for tap in 0..taps {
                each((ko * taps + tap) * padded + ci, (ko * c + ci) * taps + tap);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_survive_the_change_of_order() {
        let (shape, values) = ([2, 3, 5, 5], (0..150).map(|v| v as f32).collect::<Vec<_>>());
        let memory = to_device(2 * 25 * 4, &shape, &values);
        // Kernel 1, row 2, column 3, channel 1.
        assert_eq!(memory[((5 + 2) * 5 + 3) * 4 + 1], values[((3 + 1) * 5 + 2) * 5 + 3]);
        assert_eq!(to_torch(&memory, &shape), values);
    }
}
