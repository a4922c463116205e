//! Taxonomies: what class a value in a label map is.

use std::ops::Range;
use std::path::Path;

use super::Classes;
use super::tables::{CITYSCAPES_27, COCO_27, COCO_FINE_TO_COARSE, COCO_STUFF_FROM};
use crate::base::{Error, Result};

/// The class of pixels that count for nothing.
pub const IGNORE: u8 = 255;
/// A value no label map of the data set may hold.
const UNKNOWN: u8 = 254;

/// The classes of a data set and how its label maps spell them.
#[derive(Clone, Debug)]
pub struct Taxonomy {
    pub name: &'static str,
    /// Class names; their index is the class.
    pub classes: &'static [&'static str],
    /// Named ranges of classes that are also scored on their own (COCO-Stuff 27: things, stuff).
    pub parts: Vec<(&'static str, Range<usize>)>,
    lut: [u8; 256],
}

impl Taxonomy {
    /// COCO-Stuff: PNG values 0..=181 by the fine → coarse table, 255 ignored. With 15 (stuff) or 12 (things) classes the other
    /// part is ignored.
    ///
    /// NOTE: the released PiCIE code means to do that for 15 but never shifts the labels (its mask is always empty).
    pub fn coco_stuff(classes: Classes) -> Self {
        let (things, stuff) = (0..COCO_STUFF_FROM, COCO_STUFF_FROM..COCO_27.len());
        let (name, kept, parts) = match classes {
            Classes::All27 => ("coco-stuff 27", 0..COCO_27.len(), vec![("things", things), ("stuff", stuff)]),
            Classes::Stuff15 => ("coco-stuff 15", stuff, vec![]),
            Classes::Things12 => ("coco-stuff 12", things, vec![]),
        };
        let mut lut = [UNKNOWN; 256];
        lut[255] = IGNORE;
        for (fine, &coarse) in COCO_FINE_TO_COARSE.iter().enumerate() {
            let coarse = usize::from(coarse);
            lut[fine] = if kept.contains(&coarse) { (coarse - kept.start) as u8 } else { IGNORE };
        }
        Taxonomy { name, classes: &COCO_27[kept], parts, lut }
    }

    /// Cityscapes: class = labelId − 7; the void ids 0..=6 and −1 (license plate, 255 as a byte) are ignored.
    pub fn cityscapes() -> Self {
        let mut lut = [UNKNOWN; 256];
        lut[255] = IGNORE;
        lut[..7].fill(IGNORE);
        for (id, class) in lut[7..34].iter_mut().enumerate() {
            *class = id as u8;
        }
        Taxonomy { name: "cityscapes 27", classes: &CITYSCAPES_27, parts: vec![], lut }
    }

    /// Label map values → classes, in place. Errors: a value the data set does not have, with `file` and the value named.
    pub fn classify(&self, file: &Path, ids: &mut [u8]) -> Result<()> {
        for id in ids {
            match self.lut[usize::from(*id)] {
                UNKNOWN => {
                    return Err(Error::file(
                        file,
                        format!("the label map holds the value {id}, which {} does not know", self.name),
                        "check --dataset, or copy the file again",
                    ));
                }
                class => *id = class,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a, 64 bits.
    fn checksum(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
    }

    fn classes(t: &Taxonomy, ids: &[u8]) -> Vec<u8> {
        let mut ids = ids.to_vec();
        t.classify(Path::new("a.png"), &mut ids).unwrap();
        ids
    }

    #[test]
    fn the_fine_to_coarse_table_is_the_published_one() {
        // The checksum of the 182 bytes whose SHA-256 is 5b6c6ce82fb97a8c2d29cc61a451953c867c5aa043372a5286bbf668351e7129.
        assert_eq!(checksum(&COCO_FINE_TO_COARSE), 0xddd8_51fe_e21e_7314);
        // Things are 0..=90, stuff 91..=181.
        assert!((0..182).all(|fine| (fine <= 90) == (usize::from(COCO_FINE_TO_COARSE[fine]) < COCO_STUFF_FROM)));
    }

    #[test]
    fn coco_ids_become_classes() {
        // person, car, sheep, grass, sky-other, sea, unlabelled
        let ids = [0, 2, 19, 123, 156, 154, 255];
        let all = Taxonomy::coco_stuff(Classes::All27);
        assert_eq!(classes(&all, &ids), [9, 11, 7, 22, 23, 26, IGNORE]);
        assert_eq!(all.classes[22], "plant");
        assert_eq!(all.parts, [("things", 0..12), ("stuff", 12..27)]);
        let stuff = Taxonomy::coco_stuff(Classes::Stuff15);
        assert_eq!(classes(&stuff, &ids), [IGNORE, IGNORE, IGNORE, 10, 11, 14, IGNORE]);
        assert_eq!((stuff.classes.len(), stuff.classes[11]), (15, "sky"));
        let things = Taxonomy::coco_stuff(Classes::Things12);
        assert_eq!(classes(&things, &ids), [9, 11, 7, IGNORE, IGNORE, IGNORE, IGNORE]);
        assert_eq!((things.classes.len(), things.classes[7]), (12, "animal"));
    }

    #[test]
    fn cityscapes_ids_become_classes() {
        let t = Taxonomy::cityscapes();
        assert_eq!(classes(&t, &[0, 6, 7, 23, 33, 255]), [IGNORE, IGNORE, 0, 16, 26, IGNORE]);
        assert_eq!((t.classes.len(), t.classes[16], t.classes[26]), (27, "sky", "bicycle"));
    }

    #[test]
    fn an_unknown_id_names_the_file_and_the_value() {
        for (t, bad) in [(Taxonomy::coco_stuff(Classes::Stuff15), 182), (Taxonomy::cityscapes(), 34)] {
            let e = t.classify(Path::new("x/b.png"), &mut [255, bad]).unwrap_err().to_string();
            assert!(
                e.contains("x/b.png") && e.contains(&format!("value {bad}")) && e.contains("check --dataset"),
                "{e}"
            );
        }
    }
}
