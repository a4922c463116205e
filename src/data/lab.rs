//! Colours as people tell them apart: CIE L\*a\*b\*.

use std::sync::LazyLock;

/// The linear light (0 to 1) of each value of an sRGB channel. Source: IEC 61966-2-1.
static LINEAR: LazyLock<[f32; 256]> = LazyLock::new(|| {
    std::array::from_fn(|v| {
        let v = v as f64 / 255.0;
        (if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }) as f32
    })
});

/// Converts an sRGB colour to L\* (0 to 100), a\* and b\* (about −100 to 100), for the white D65
/// and the observer of 2°.
pub fn lab(rgb: [u8; 3]) -> [f32; 3] {
    let [r, g, b] = rgb.map(|v| LINEAR[usize::from(v)]);
    // Rows of the matrix to XYZ, each divided by the white's X, Y or Z (0.95047, 1, 1.08883).
    let x = (0.412_456_4 * r + 0.357_576_1 * g + 0.180_437_5 * b) / 0.950_47;
    let y = 0.212_672_9 * r + 0.715_152_2 * g + 0.072_175 * b;
    let z = (0.019_333_9 * r + 0.119_192 * g + 0.950_304_1 * b) / 1.088_83;
    let [x, y, z] = [x, y, z].map(|t: f32| {
        const D: f32 = 6.0 / 29.0;
        if t > D * D * D { t.cbrt() } else { t / (3.0 * D * D) + 4.0 / 29.0 }
    });
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours_have_their_coordinates() {
        for (rgb, want) in [
            ([255, 0, 0], [53.24, 80.09, 67.20]),
            ([0, 255, 0], [87.73, -86.18, 83.18]),
            ([0, 0, 255], [32.30, 79.19, -107.86]),
            ([255, 255, 255], [100.0, 0.0, 0.0]),
            ([119, 119, 119], [50.03, 0.0, 0.0]),
            ([0, 0, 0], [0.0, 0.0, 0.0]),
            // Dark enough for both linear parts.
            ([2, 2, 2], [0.55, 0.0, 0.0]),
        ] {
            let got = lab(rgb);
            let off = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max);
            assert!(off <= 0.01, "{rgb:?}: {got:?}, wanted {want:?}");
        }
    }
}
