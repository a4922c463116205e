//! What clusters are called and drawn in: one number, one name and one colour in every picture,
//! table and file.

use serde::{Deserialize, Serialize};

use crate::data::Taxonomy;
use crate::data::palette::{Colour, palette};
use crate::eval::ClassOf;

/// A cluster to people; its number is its place in the list of all.
///
/// Clusters of one name have one colour. Others have another one each, as far as colours go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The class that it is or what the user called it. `None`: nobody said.
    pub name: Option<String>,
    /// Its colour in pictures and in the palette of label maps.
    pub colour: Colour,
}

impl Segment {
    /// Clusters of which nothing is known.
    pub fn unnamed(clusters: usize) -> Vec<Self> {
        palette(clusters).into_iter().map(|colour| Segment { name: None, colour }).collect()
    }

    /// The classes of a data set.
    pub fn classes(taxonomy: &Taxonomy) -> Vec<Self> {
        let named = taxonomy.classes.iter().zip(taxonomy.palette());
        named.map(|(name, colour)| Segment { name: Some(name.clone()), colour }).collect()
    }

    /// Clusters as the `classes` that they stand for, with their names and colours. Those without a
    /// class have colours that no class has.
    pub fn matched(classes: &[Segment], class_of: &ClassOf) -> Vec<Self> {
        let taken = |colour: &Colour| classes.iter().any(|class| class.colour == *colour);
        let all = palette(classes.len() + class_of.len()).into_iter();
        let mut free: Vec<Colour> = all.filter(|colour| !taken(colour)).collect();
        let free = free.split_off(free.len() - class_of.len());
        let own = |(class, colour): (&Option<usize>, Colour)| match class {
            Some(class) => classes[*class].clone(),
            None => Segment { name: None, colour },
        };
        class_of.iter().zip(free).map(own).collect()
    }

    /// The list of a file for `clusters` clusters: that of another number says nothing of these.
    pub fn completed(segments: Vec<Self>, clusters: usize) -> Vec<Self> {
        if segments.len() == clusters { segments } else { Segment::unnamed(clusters) }
    }

    /// Calls cluster `id` by another name, or by none. It takes the colour of the others of that
    /// name. If there are none, and those that it shared its colour with keep their name, it gets
    /// the first colour that no other cluster has.
    pub fn rename(segments: &mut [Self], id: usize, name: Option<String>) {
        let others = || segments.iter().enumerate().filter(|(i, _)| *i != id).map(|(_, s)| s);
        let same = others().find(|other| name.is_some() && other.name == name);
        let taken = |colour: &Colour| others().any(|other| other.colour == *colour);
        let own = segments[id].colour;
        let colour = match same {
            Some(same) => same.colour,
            None if taken(&own) => {
                let free = palette(2 * segments.len()).into_iter().find(|c| !taken(c));
                free.unwrap_or(own)
            }
            None => own,
        };
        segments[id] = Segment { name, colour };
    }

    /// The clusters in legends, by number and name.
    pub fn legend(segments: &[Self]) -> Vec<(String, Colour)> {
        let entry = |(id, segment): (usize, &Segment)| (segment.title(id), segment.colour);
        segments.iter().enumerate().map(entry).collect()
    }

    /// Classes in legends, by name alone.
    pub fn class_legend(classes: &[Self]) -> Vec<(String, Colour)> {
        let entry = |class: &Segment| (class.name.clone().unwrap_or_default(), class.colour);
        classes.iter().map(entry).collect()
    }

    /// The colour as web pages write it.
    pub fn hex(&self) -> String {
        let [r, g, b] = self.colour;
        format!("#{r:02x}{g:02x}{b:02x}")
    }

    /// What people read of cluster `id`: "3 sky", or "cluster 3".
    pub fn title(&self, id: usize) -> String {
        match &self.name {
            Some(name) => format!("{id} {name}"),
            None => format!("cluster {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, colour: Colour) -> Segment {
        Segment { name: Some(name.into()), colour }
    }

    #[test]
    fn clusters_are_called_as_their_classes() {
        let classes = Segment::classes(&Taxonomy::new("", "", &["sky", "sea"], []));
        let colours = palette(5);
        let found = Segment::matched(&classes, &vec![Some(1), None, Some(1)]);
        assert_eq!(
            found,
            [
                named("sea", colours[1]),
                Segment { name: None, colour: colours[3] },
                named("sea", colours[1]),
            ]
        );
        let legend = Segment::legend(&found);
        assert_eq!(legend[1], ("cluster 1".into(), colours[3]));
        assert_eq!((&*legend[2].0, &*Segment::class_legend(&classes)[0].0), ("2 sea", "sky"));
        assert_eq!(Segment::completed(found.clone(), 3), found);
        assert_eq!(Segment::completed(found, 2), Segment::unnamed(2));
    }

    #[test]
    fn one_name_is_one_colour() {
        let colours = palette(9);
        let mut all = Segment::unnamed(4);
        let mut call = |id, name: &str| {
            let name = Some(name.to_string()).filter(|name| !name.is_empty());
            Segment::rename(&mut all, id, name);
            all.iter().map(|s| s.colour).collect::<Vec<_>>()
        };
        assert_eq!(call(3, "sky"), colours[..4]);
        // What gets the same name gets the same colour, and loses it with the name.
        assert_eq!(call(1, "sky")[1], colours[3]);
        assert_eq!(call(1, "sea"), colours[..4]);
        assert_eq!(call(2, "sea")[2], colours[1]);
        assert_eq!(call(1, "")[1..3], [colours[2], colours[1]]);
    }
}
