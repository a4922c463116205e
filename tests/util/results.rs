//! What a case leaves, or should: values by name, of whatever origin, compared in one place.

use std::collections::BTreeMap;
use std::ops::Index;

use crate::util::{Number, close};

/// The tolerance of what is selected, copied or zero, never computed.
pub const EXACT: f32 = 0.0;

#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    Floats(Vec<f32>),
    Integers(Vec<u32>),
}

impl<T: Number> From<Vec<T>> for Values {
    fn from(data: Vec<T>) -> Self {
        T::values(data)
    }
}

impl From<Vec<f64>> for Values {
    fn from(data: Vec<f64>) -> Self {
        Values::Floats(crate::util::to_f32(&data))
    }
}

#[derive(Clone, Debug)]
pub struct Results {
    /// Whose they are, for messages.
    case: String,
    values: BTreeMap<String, Values>,
}

/// What `bare`, which an op adds, makes of [`Number::start`].
pub fn added<T: Number + std::ops::Add<Output = T>>(bare: &[T]) -> Vec<T> {
    T::start(bare.len()).into_iter().zip(bare).map(|(start, &bare)| start + bare).collect()
}

impl Results {
    pub fn new(case: &str) -> Self {
        Results { case: case.into(), values: BTreeMap::new() }
    }

    /// What a reference says.
    pub fn of<const N: usize>(values: [(&str, Values); N]) -> Self {
        let mut results = Results::new("a reference");
        values.into_iter().for_each(|(name, values)| results.put(name, values));
        results
    }

    /// Whose they are.
    pub fn case(&self) -> &str {
        &self.case
    }

    pub fn put(&mut self, name: &str, values: Values) {
        let before = self.values.insert(name.into(), values);
        assert!(before.is_none(), "{}: two results are called {name}", self.case);
    }

    /// Takes one out that needs a comparison of its own.
    pub fn take(&mut self, name: &str) -> Values {
        self.values.remove(name).unwrap_or_else(|| panic!("{}: no result {name}", self.case))
    }

    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub fn integers(&self, name: &str) -> &[u32] {
        match self.values.get(name) {
            Some(Values::Integers(values)) => values,
            other => panic!("{}: {name} is {other:?}, not integers", self.case),
        }
    }

    /// What was added to [`Number::start`].
    pub fn bare(&self, name: &str) -> Vec<f32> {
        let start = f32::start(self[name].len());
        self[name].iter().zip(start).map(|(end, start)| end - start).collect()
    }

    /// Bits by name: NaN is NaN.
    pub fn bits(&self) -> BTreeMap<&str, Vec<u32>> {
        let bits = |values: &Values| match values {
            Values::Floats(values) => values.iter().map(|v| v.to_bits()).collect(),
            Values::Integers(values) => values.clone(),
        };
        self.values.iter().map(|(name, values)| (name.as_str(), bits(values))).collect()
    }

    /// Fails unless both have the same names, integers are equal, and floats as [`close`] says,
    /// each within `tol` of its name.
    #[track_caller]
    pub fn close(&self, want: &Results, tol: impl Fn(&str) -> f32) {
        let names = |r: &Results| r.values.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(self), names(want), "{}: results", self.case);
        for (name, want) in &want.values {
            let what = format!("{}: {name}", self.case);
            match (&self.values[name], want) {
                (Values::Floats(got), Values::Floats(want)) if tol(name) != EXACT => {
                    close(&what, got, want, tol(name));
                }
                (Values::Floats(got), Values::Floats(want)) => equal(&what, got, want),
                (Values::Integers(got), Values::Integers(want)) => equal(&what, got, want),
                _ => panic!("{what}: floats are compared with integers"),
            }
        }
    }
}

/// Fails with the first that differs.
#[track_caller]
pub fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: &[T], want: &[T]) {
    assert_eq!(got.len(), want.len(), "{what}: elements");
    let off = got.iter().zip(want).position(|(got, want)| got != want);
    let off = off.map(|i| (i, &got[i], &want[i]));
    assert!(off.is_none(), "{what}: first off, got, want: {off:?}");
}

/// Floats by name.
impl Index<&str> for Results {
    type Output = Vec<f32>;

    fn index(&self, name: &str) -> &Vec<f32> {
        match self.values.get(name) {
            Some(Values::Floats(values)) => values,
            other => panic!("{}: {name} is {other:?}, not floats", self.case),
        }
    }
}
