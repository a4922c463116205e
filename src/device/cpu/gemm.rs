//! Matrix products: a checked door to the `gemm-f32` crate, one thread a call.

/// A matrix in a slice: element (i, j) is at `i·rows + j·cols`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub cols: usize,
}

impl<'a> Mat<'a> {
    /// A row-major matrix with `width` elements from row to row.
    pub fn row_major(data: &'a [f32], width: usize) -> Self {
        Mat { data, rows: width, cols: 1 }
    }

    /// The transpose of a row-major matrix with `width` elements from row to row.
    pub fn transposed(data: &'a [f32], width: usize) -> Self {
        Mat { data, rows: 1, cols: width }
    }

    fn last(&self, m: usize, n: usize) -> usize {
        (m - 1) * self.rows + (n - 1) * self.cols
    }
}

/// The product of two matrices: c (m, n) = a (m, k) · b (k, n), or += with `add`. c is row-major
/// with `width` elements from row to row.
///
/// The result does not depend on threads: one call runs on one thread, in an order that its sizes
/// fix.
pub fn gemm(
    c: &mut [f32],
    width: usize,
    add: bool,
    a: Mat,
    b: Mat,
    (m, n, k): (usize, usize, usize),
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        k > 0 && (m - 1) * width + n <= c.len() && n <= width,
        "gemm: c has {} elements for {m}×{n} by {width}",
        c.len()
    );
    assert!(a.last(m, k) < a.data.len(), "gemm: a has {} elements for {m}×{k}", a.data.len());
    assert!(b.last(k, n) < b.data.len(), "gemm: b has {} elements for {k}×{n}", b.data.len());
    // The kernels write columns: cᵀ = bᵀ · aᵀ has as its columns the rows of c. Strides are those
    // of (column, row) of the transposes; there are no complex numbers to conjugate.
    let product = gemm_f32::gemm::f32::get_gemm_fn();
    // SAFETY: the three assertions above bound every element that the call touches; c is borrowed
    // mutably, so it overlaps neither a nor b, and n <= width keeps its rows apart.
    unsafe {
        product(
            n,
            m,
            k,
            c.as_mut_ptr(),
            width as isize,
            1,
            add,
            b.data.as_ptr(),
            b.rows as isize,
            b.cols as isize,
            a.data.as_ptr(),
            a.rows as isize,
            a.cols as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm_common::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_with_strides_agree_with_plain_loops() {
        let (m, n, k) = (7, 5, 11);
        let a: Vec<f32> = (0..m * k).map(|i| ((i * 37 % 19) as f32 - 9.0) / 8.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| ((i * 29 % 17) as f32 - 8.0) / 8.0).collect();
        for add in [false, true] {
            let mut c = vec![2.0; m * 8];
            // a is stored transposed: (k, m).
            gemm(&mut c, 8, add, Mat::transposed(&a, m), Mat::row_major(&b, n), (m, n, k));
            for i in 0..m {
                for j in 0..n {
                    let sum: f32 = (0..k).map(|l| a[l * m + i] * b[l * n + j]).sum();
                    // Multiples of 1/64 below 2^10: exact in any order.
                    assert_eq!(c[i * 8 + j], sum + if add { 2.0 } else { 0.0 });
                }
                assert_eq!(c[i * 8 + n..i * 8 + 8], [2.0; 3], "written past the row");
            }
        }
    }

    #[test]
    #[should_panic(expected = "gemm: b has 9 elements")]
    fn a_matrix_that_is_too_short_is_refused() {
        gemm(
            &mut [0.0; 4],
            2,
            false,
            Mat::row_major(&[0.0; 10], 5),
            Mat::row_major(&[0.0; 9], 2),
            (2, 2, 5),
        );
    }
}
