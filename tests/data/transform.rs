//! Pictures and label maps become squares, as the reference code makes them.

use crate::util::files::gradient;
use picie::data::decode::{LabelMap, Rgb};
use picie::data::large::Alone;
use picie::data::transform::{Placement, image, label};
use picie::data::{Fit, IGNORE, Square};

#[test]
fn pictures_are_resized_as_pillow_does() {
    for (width, height, size, want) in PILLOW_IMAGES {
        let source = gradient(*width as u32, *height as u32);
        let source = Rgb {
            width: *width,
            height: *height,
            pixels: source.into_raw(),
            alone: Alone::default(),
        };
        let mut out = vec![0; size * size * 3];
        image(&source, Square::new(*size, Fit::Crop), &mut out);
        // 1 level: both round to 8 bits after each of two passes, with other fixed-point
        // weights.
        let worst = out.iter().zip(*want).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(
            worst <= 1 && out.len() == want.len(),
            "{width}x{height} to {size}: {worst} levels off"
        );
    }
}

#[test]
fn label_maps_are_resized_as_pillow_does() {
    for (width, height, size, want) in PILLOW_LABELS {
        let map = LabelMap {
            width: *width,
            height: *height,
            ids: (0..width * height).map(|i| i as u8).collect(),
            alone: Alone::default(),
        };
        let mut out = vec![0; size * size];
        label(&map, Square::new(*size, Fit::Crop), &mut out);
        assert_eq!(out, *want, "{width}x{height} to {size}");
    }
}

#[test]
fn a_third_is_every_third_pixel_padded_where_it_is_short() {
    // Without antialias a third of the size is the middle pixel of each 3 × 3: 24 columns are
    // 8, cut to 6; 12 rows are 4, padded.
    let (w, h, size, fit) = (24, 12, 6, Fit::Pad { scale: 1.0 / 3.0 });
    let source = gradient(w as u32, h as u32);
    let picture =
        Rgb { width: w, height: h, pixels: source.clone().into_raw(), alone: Alone::default() };
    let map = LabelMap {
        width: w,
        height: h,
        ids: (0..h * w).map(|i| (i % 251) as u8).collect(),
        alone: Alone::default(),
    };
    let (mut out, mut ids) = (vec![9; size * size * 3], vec![9; size * size]);
    image(&picture, Square::new(size, fit), &mut out);
    label(&map, Square::new(size, fit), &mut ids);
    for (y, x) in (0..size * size).map(|i| (i / size, i % size)) {
        let (got, id) = (&out[(y * size + x) * 3..][..3], ids[y * size + x]);
        if (1..5).contains(&y) {
            let (row, column) = (3 * (y - 1) + 1, 3 * (x + 1) + 1);
            assert_eq!(got, source.get_pixel(column as u32, row as u32).0, "{y} {x}");
            assert_eq!(id, ((row * w + column) % 251) as u8, "{y} {x}");
        } else {
            assert_eq!((got, id), ([0; 3].as_slice(), IGNORE), "{y} {x}");
        }
    }
}

#[test]
fn points_lie_where_pixels_are_resized_to() {
    // Nearest-neighbor label maps know: pixel (x, y) of the square shows the pixel of the
    // picture that its middle lies in.
    for (w, h, size, fit) in
        [(20, 10, 6, Fit::Crop), (5, 13, 8, Fit::Crop), (24, 12, 6, Fit::Pad { scale: 1.0 / 3.0 })]
    {
        let map = LabelMap {
            width: w,
            height: h,
            ids: (0..w * h).map(|i| (i % 251) as u8).collect(),
            alone: Alone::default(),
        };
        let (mut ids, place) = (vec![0; size * size], Placement::new(w, h, Square::new(size, fit)));
        label(&map, Square::new(size, fit), &mut ids);
        for (i, id) in ids.into_iter().enumerate() {
            let middle = ((i % size) as f64 + 0.5, (i / size) as f64 + 0.5);
            let Some((x, y)) = place.to_picture(middle) else {
                assert_eq!(id, IGNORE, "{fit:?} {i}");
                continue;
            };
            assert_eq!(usize::from(id), (y as usize * w + x as usize) % 251, "{fit:?} {i}");
            assert_eq!(place.to_square((x, y)), Some((i % size, i / size)), "{fit:?} {i}");
        }
    }
    let wide = Placement::new(20, 10, Square::new(6, Fit::Crop));
    assert_eq!((wide.to_square((4.5, 3.0)), wide.to_square((5.1, 0.0))), (None, Some((0, 0))));
    assert_eq!((wide.to_square((14.9, 9.9)), wide.to_square((15.1, 9.9))), (Some((5, 5)), None));
}

#[test]
fn fits_have_names_in_files() {
    let text = |fit: Fit| serde_json::to_string(&fit).unwrap();
    assert_eq!(
        (text(Fit::Crop), text(Fit::Pad { scale: 0.33 })),
        ("\"crop\"".into(), "{\"pad\":{\"scale\":0.33}}".into())
    );
}

#[test]
fn the_longest_picture_fits() {
    let source = Rgb { width: 3000, height: 1, pixels: vec![5; 9000], alone: Alone::default() };
    let mut out = vec![0; 8 * 8 * 3];
    image(&source, Square::new(8, Fit::Crop), &mut out);
    assert!(out.iter().all(|&v| v == 5));
}

/// (W, H, S, u8 (S, S, 3)) by Pillow 13.0 and torchvision on `gradient(W, H)`.
#[rustfmt::skip]
const PILLOW_IMAGES: &[(usize, usize, usize, &[u8])] = &[
    (13, 9, 4, &[48, 139, 66, 133, 151, 98, 151, 164, 124, 73, 177, 75, 70, 152, 103, 155, 93, 132, 150, 103, 143, 95, 116, 133, 96, 116, 118, 178, 124, 148, 101, 137, 147, 121, 149, 130, 118, 124, 130, 172, 136, 155, 78, 149, 150, 143, 159, 108]),
    (5, 7, 4, &[13, 109, 42, 56, 115, 54, 100, 121, 65, 143, 127, 76, 26, 173, 51, 69, 179, 104, 113, 185, 157, 156, 191, 103, 42, 203, 62, 85, 141, 144, 129, 53, 123, 172, 59, 122, 58, 71, 72, 101, 77, 116, 145, 83, 117, 188, 89, 182]),
    (3, 4, 5, &[0, 90, 40, 15, 92, 40, 37, 95, 40, 59, 98, 40, 74, 100, 40, 6, 117, 40, 21, 119, 46, 43, 122, 55, 65, 125, 63, 80, 127, 69, 13, 152, 40, 28, 154, 54, 50, 157, 74, 72, 160, 94, 87, 162, 108, 20, 187, 40, 35, 189, 61, 57, 192, 93, 79, 195, 125, 94, 197, 146, 28, 223, 40, 43, 225, 69, 65, 228, 113, 87, 154, 156, 102, 105, 185]),
    (31, 17, 3, &[128, 138, 122, 125, 126, 122, 125, 129, 120, 129, 129, 121, 129, 126, 126, 126, 123, 120, 128, 134, 125, 126, 141, 130, 127, 128, 120]),
];
/// (W, H, S, u8 (S, S)) likewise, nearest, on the map whose pixel i holds i mod 256.
#[rustfmt::skip]
const PILLOW_LABELS: &[(usize, usize, usize, &[u8])] = &[
    (13, 9, 4, &[14, 16, 19, 22, 40, 42, 45, 48, 66, 68, 71, 74, 92, 94, 97, 100]),
    (5, 7, 4, &[0, 1, 3, 4, 10, 11, 13, 14, 15, 16, 18, 19, 20, 21, 23, 24]),
    (3, 4, 5, &[0, 0, 1, 2, 2, 3, 3, 4, 5, 5, 3, 3, 4, 5, 5, 6, 6, 7, 8, 8, 6, 6, 7, 8, 8]),
    (20, 10, 6, &[5, 7, 9, 10, 12, 14, 45, 47, 49, 50, 52, 54, 85, 87, 89, 90, 92, 94, 105, 107, 109, 110, 112, 114, 145, 147, 149, 150, 152, 154, 185, 187, 189, 190, 192, 194]),
    (31, 47, 7, &[87, 91, 96, 100, 104, 109, 113, 242, 246, 251, 255, 3, 8, 12, 141, 145, 150, 154, 158, 163, 167, 9, 13, 18, 22, 26, 31, 35, 164, 168, 173, 177, 181, 186, 190, 63, 67, 72, 76, 80, 85, 89, 187, 191, 196, 200, 204, 209, 213]),
];
