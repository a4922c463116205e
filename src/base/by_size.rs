//! Values that are made once for each size that occurs, such as the number of images of a full
//! batch and of the last, smaller one.

use crate::base::Result;

/// A look-up from a size to the value that was planned for it.
#[derive(Clone, Debug, Default)]
pub struct BySize<T>(Vec<(usize, T)>);

impl<T> BySize<T> {
    /// Calls `plan` for each different size of `sizes`, in their order, and keeps what it returns.
    /// Fails with the first error of `plan`.
    pub fn plan(
        sizes: impl IntoIterator<Item = usize>,
        mut plan: impl FnMut(usize) -> Result<T>,
    ) -> Result<Self> {
        let mut all: Vec<(usize, T)> = Vec::new();
        for size in sizes {
            if !all.iter().any(|(planned, _)| *planned == size) {
                all.push((size, plan(size)?));
            }
        }
        Ok(BySize(all))
    }

    /// The value that was planned for `size`. Panics if that size was not planned.
    pub fn of(&self, size: usize) -> &T {
        let found = self.0.iter().find(|(planned, _)| *planned == size);
        &found.unwrap_or_else(|| panic!("size {size} was not planned")).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Error;

    #[test]
    fn each_size_is_planned_once_in_order() {
        let mut planned = Vec::new();
        let all = BySize::plan([8, 3, 8], |size| {
            planned.push(size);
            Ok(size * 10)
        });
        let all = all.unwrap();
        assert_eq!((planned, *all.of(3), *all.of(8)), (vec![8, 3], 30, 80));
        let refused = BySize::<()>::plan([1], |_| Err(Error::input("no", "yes")));
        assert!(refused.is_err());
    }
}
