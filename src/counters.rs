//! How counters are declared: once, with their names, so that adding one is one line.
//!
//! A set of counters has a single writer. Sums over several sets, and the form in which they are
//! published and printed, follow from the declaration.

/// Declares a struct of `u64` counters. Each line says what it is, and so how several sets are
/// joined: `sum` (it only grows), `gauge` (it may fall; added up too), or `max` (the greatest value
/// seen).
macro_rules! counters {
    (
        $(#[$outer:meta])*
        $name:ident { $($(#[doc = $help:literal])+ $field:ident: $join:ident,)+ }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[doc = $help])+ pub $field: u64,)+ }

        impl $name {
            /// The names of the counters, in the order of `values`.
            pub const NAMES: &[&str] = &[$(stringify!($field),)+];

            /// What each of them counts.
            pub const HELP: &[&str] = &[$(concat!($($help),+),)+];

            /// Whether each of them may fall as well as rise.
            pub const GAUGES: &[bool] = &[$(crate::counters::is_gauge(stringify!($join)),)+];

            /// Joins another set into this one.
            pub fn add(&mut self, other: &$name) {
                $(crate::counters::$join(&mut self.$field, other.$field);)+
            }

            /// The values, in the order of `NAMES`.
            pub fn values(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$field,)+]
            }

            /// The set that these values are of.
            pub fn from_values(values: [u64; Self::NAMES.len()]) -> $name {
                let [$($field,)+] = values;
                $name { $($field,)+ }
            }
        }
    };
}

pub(crate) use counters;

pub(crate) fn sum(total: &mut u64, value: u64) {
    *total += value;
}

/// A gauge may have been taken below 0 by a defect: the law that it stands in shall say so.
pub(crate) fn gauge(total: &mut u64, value: u64) {
    *total = total.wrapping_add(value);
}

/// Whether a counter of this kind may fall.
pub(crate) const fn is_gauge(kind: &str) -> bool {
    matches!(kind.as_bytes(), b"gauge")
}

pub(crate) fn max(total: &mut u64, value: u64) {
    *total = (*total).max(value);
}

#[cfg(test)]
mod tests {
    counters! {
        /// For the test.
        Sample {
            /// A sum.
            seen: sum,
            /// A maximum.
            worst: max,
            /// A gauge.
            held: gauge,
        }
    }

    #[test]
    fn sets_are_joined_as_declared_and_survive_being_published() {
        let mut total = Sample { seen: 3, worst: 9, held: 1 };
        total.add(&Sample { seen: 4, worst: 2, held: 1 });
        assert_eq!(total, Sample { seen: 7, worst: 9, held: 2 });
        assert_eq!(Sample::NAMES, ["seen", "worst", "held"]);
        assert_eq!(Sample::HELP, [" A sum.", " A maximum.", " A gauge."]);
        assert_eq!(Sample::GAUGES, [false, false, true]);
        assert_eq!(Sample::from_values(total.values()), total);
    }
}
