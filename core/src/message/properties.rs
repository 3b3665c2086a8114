//! Application properties.

use std::collections::HashMap;

/// Application properties: names and values, in the order they were set, each name once.
///
/// Names are case-sensitive here; the hub's readers may compare them without case, so two names that differ only in
/// case are best avoided. A name without a value on the wire is read as an empty value.
///
/// ```
/// use whimbrel::Properties;
///
/// let mut properties: Properties = [("room", "attic"), ("floor", "2")].into_iter().collect();
/// properties.set("room", "cellar");
/// let all: Vec<_> = properties.iter().collect();
/// assert_eq!(all, [("room", "cellar"), ("floor", "2")]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(Vec<(String, String)>);

impl Properties {
    /// Sets a property; a value set before under the same name is replaced.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// The value of a property.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Names and values in the order they were set.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps the first place and the last value of each name. Linear however many there are: a peer may send as many
    /// as fit into a packet.
    pub(crate) fn from_pairs(pairs: Vec<(String, String)>) -> Self {
        if pairs.len() <= FEW {
            return pairs.into_iter().fold(Self::default(), |mut properties, (name, value)| {
                properties.set(name, value);
                properties
            });
        }
        let mut last: HashMap<String, (usize, String)> = HashMap::with_capacity(pairs.len());
        for (place, (name, value)) in pairs.into_iter().enumerate() {
            last.entry(name).or_insert((place, String::new())).1 = value;
        }
        let mut ordered: Vec<_> = last.into_iter().collect();
        ordered.sort_unstable_by_key(|(_, (place, _))| *place);
        Self(ordered.into_iter().map(|(name, (_, value))| (name, value)).collect())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Properties {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self::from_pairs(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Up to here comparing each with each is the quicker way.
const FEW: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_wins_in_the_first_place() {
        for count in [1, FEW, FEW + 1, 500] {
            let pairs = (0..count).chain(0..count).map(|n| (format!("name{n}"), format!("{n}")));
            let once: Properties = pairs.chain([("name0".into(), "last".into())]).collect();
            assert_eq!(once.len(), count);
            assert_eq!(once.get("name0"), Some("last"));
            assert!(once.iter().enumerate().all(|(place, (name, _))| name == format!("name{place}")));
        }
    }
}
