//! Taxonomies: what class a value in a label map is.

use std::ops::Range;
use std::path::Path;

use super::decode::{self, LabelMap};
use super::tables::{
    CITYSCAPES_27, COCO_3, COCO_3_OF_27, COCO_27, COCO_FINE_TO_COARSE, COCO_STUFF_FROM, POTSDAM_3,
    POTSDAM_6, POTSDAM_6_TO_3, POTSDAM_COLOURS,
};
use super::{Classes, Kind};
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
    /// The colour of each value, where label maps may be pictures.
    colours: &'static [[u8; 3]],
}

impl Taxonomy {
    /// The classes of a data set; none for a plain folder. Errors: classes that it does not have.
    pub fn of(kind: Kind, classes: Classes) -> Result<Option<Self>> {
        let (name, known) = match kind {
            Kind::CocoStuff => (
                "COCO-Stuff",
                [Classes::All27, Classes::Stuff15, Classes::Things12, Classes::Coarse3].as_slice(),
            ),
            Kind::Cityscapes => ("Cityscapes", [Classes::All27].as_slice()),
            Kind::Potsdam => ("Potsdam", [Classes::Coarse3, Classes::Potsdam6].as_slice()),
            Kind::Folder => ("a plain folder", [Classes::All27].as_slice()),
        };
        if !known.contains(&classes) {
            let flags: Vec<String> =
                known.iter().map(|&c| format!("--classes {}", flag(c))).collect();
            let what = format!("{name} has no table of {} classes", flag(classes));
            return Err(Error::input(
                what,
                format!("use {} for this data set", flags.join(" or ")),
            ));
        }
        Ok(match kind {
            Kind::CocoStuff => Some(Self::coco_stuff(classes)),
            Kind::Cityscapes => Some(Self::cityscapes()),
            Kind::Potsdam => Some(Self::potsdam(classes)),
            Kind::Folder => None,
        })
    }

    /// COCO-Stuff: PNG values 0..=181 by the fine → coarse table, 255 ignored. With 15 (stuff), 12
    /// (things) or 3 classes all others are ignored.
    ///
    /// NOTE: the released PiCIE code means to do that for 15 but never shifts the labels (its mask
    /// is always empty).
    fn coco_stuff(classes: Classes) -> Self {
        let all = 0..COCO_27.len();
        let (things, stuff) = (0..COCO_STUFF_FROM, COCO_STUFF_FROM..all.end);
        // The coarse classes that are kept, in order.
        let (name, names, kept): (_, &'static [&'static str], Vec<usize>) = match classes {
            Classes::Stuff15 => ("coco-stuff 15", &COCO_27[stuff.clone()], stuff.clone().collect()),
            Classes::Things12 => {
                ("coco-stuff 12", &COCO_27[things.clone()], things.clone().collect())
            }
            Classes::Coarse3 => ("coco-stuff 3", &COCO_3, COCO_3_OF_27.to_vec()),
            _ => ("coco-stuff 27", &COCO_27, all.collect()),
        };
        let parts = if names.len() == COCO_27.len() {
            vec![("things", things), ("stuff", stuff)]
        } else {
            vec![]
        };
        let mut lut = [UNKNOWN; 256];
        lut[255] = IGNORE;
        for (fine, &coarse) in COCO_FINE_TO_COARSE.iter().enumerate() {
            let class = kept.iter().position(|&kept| kept == usize::from(coarse));
            lut[fine] = class.map_or(IGNORE, |class| class as u8);
        }
        Taxonomy { name, classes: names, parts, lut, colours: &[] }
    }

    /// Potsdam: ids 0..=5, 255 ignored; with 3 classes in pairs.
    fn potsdam(classes: Classes) -> Self {
        let mut lut = [UNKNOWN; 256];
        lut[255] = IGNORE;
        let six = classes == Classes::Potsdam6;
        for (id, &pair) in POTSDAM_6_TO_3.iter().enumerate() {
            lut[id] = if six { id as u8 } else { pair };
        }
        let (name, classes): (_, &'static [&'static str]) =
            if six { ("potsdam 6", &POTSDAM_6) } else { ("potsdam 3", &POTSDAM_3) };
        Taxonomy { name, classes, parts: vec![], lut, colours: &POTSDAM_COLOURS }
    }

    /// Cityscapes: class = labelId − 7; the void ids 0..=6 and −1 (license plate, 255 as a byte)
    /// are ignored.
    fn cityscapes() -> Self {
        let mut lut = [UNKNOWN; 256];
        lut[255] = IGNORE;
        lut[..7].fill(IGNORE);
        for (id, class) in lut[7..34].iter_mut().enumerate() {
            *class = id as u8;
        }
        Taxonomy {
            name: "cityscapes 27",
            classes: &CITYSCAPES_27,
            parts: vec![],
            lut,
            colours: &[],
        }
    }

    /// Reads a label map as classes.
    pub fn read(&self, file: &Path) -> Result<LabelMap> {
        let mut map = decode::coloured_label(file, self.colours)?;
        self.classify(file, &mut map.ids)?;
        Ok(map)
    }

    /// Label map values → classes, in place. Errors: a value the data set does not have, with
    /// `file` and the value named.
    pub fn classify(&self, file: &Path, ids: &mut [u8]) -> Result<()> {
        for id in ids {
            match self.lut[usize::from(*id)] {
                UNKNOWN => {
                    return Err(Error::file(
                        file,
                        format!(
                            "the label map holds the value {id}, which {} does not know",
                            self.name
                        ),
                        "check --dataset, or copy the file again",
                    ));
                }
                class => *id = class,
            }
        }
        Ok(())
    }
}

/// What the command line calls it.
fn flag(classes: Classes) -> &'static str {
    match classes {
        Classes::All27 => "27",
        Classes::Stuff15 => "15",
        Classes::Things12 => "12",
        Classes::Potsdam6 => "6",
        Classes::Coarse3 => "3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a, 64 bits.
    fn checksum(bytes: &[u8]) -> u64 {
        bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
    }

    fn classes(t: &Taxonomy, ids: &[u8]) -> Vec<u8> {
        let mut ids = ids.to_vec();
        t.classify(Path::new("a.png"), &mut ids).unwrap();
        ids
    }

    #[test]
    fn the_fine_to_coarse_table_is_the_published_one() {
        // The checksum of the 182 bytes whose SHA-256 is
        // 5b6c6ce82fb97a8c2d29cc61a451953c867c5aa043372a5286bbf668351e7129.
        assert_eq!(checksum(&COCO_FINE_TO_COARSE), 0xddd8_51fe_e21e_7314);
        // Things are 0..=90, stuff 91..=181.
        assert!(
            (0..182)
                .all(|fine| (fine <= 90)
                    == (usize::from(COCO_FINE_TO_COARSE[fine]) < COCO_STUFF_FROM))
        );
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
    fn three_classes_are_in_iics_order() {
        let three = Taxonomy::coco_stuff(Classes::Coarse3);
        // sky-other, clouds, grass, tree, road, sea, person, unlabelled
        let ids = [156, 105, 123, 168, 148, 154, 0, 255];
        assert_eq!(classes(&three, &ids), [0, 0, 1, 1, 2, IGNORE, IGNORE, IGNORE]);
        assert_eq!((three.classes, three.parts.len()), (["sky", "plant", "ground"].as_slice(), 0));
        // Potsdam: road, building, low vegetation, tree, car, clutter.
        let ids = [0, 1, 2, 3, 4, 5, 255];
        assert_eq!(classes(&Taxonomy::potsdam(Classes::Coarse3), &ids), [0, 1, 2, 2, 0, 1, IGNORE]);
        assert_eq!(classes(&Taxonomy::potsdam(Classes::Potsdam6), &ids), ids);
    }

    #[test]
    fn classes_that_a_data_set_does_not_have_are_refused() {
        for (kind, has) in [
            (Kind::CocoStuff, [true, true, true, false, true]),
            (Kind::Cityscapes, [true, false, false, false, false]),
            (Kind::Potsdam, [false, false, false, true, true]),
            (Kind::Folder, [true, false, false, false, false]),
        ] {
            let all = [
                Classes::All27,
                Classes::Stuff15,
                Classes::Things12,
                Classes::Potsdam6,
                Classes::Coarse3,
            ];
            for (classes, has) in all.into_iter().zip(has) {
                assert_eq!(Taxonomy::of(kind, classes).is_ok(), has, "{kind:?} {classes:?}");
            }
        }
        let e = Taxonomy::of(Kind::Potsdam, Classes::All27).unwrap_err().to_string();
        assert!(
            e.contains("Potsdam has no table of 27 classes; use --classes 3 or --classes 6"),
            "{e}"
        );
        for classes in [Classes::All27, Classes::Stuff15, Classes::Potsdam6] {
            use clap::ValueEnum;
            assert_eq!(Classes::from_str(flag(classes), false), Ok(classes));
        }
    }

    #[test]
    fn cityscapes_ids_become_classes() {
        let t = Taxonomy::cityscapes();
        assert_eq!(classes(&t, &[0, 6, 7, 23, 33, 255]), [IGNORE, IGNORE, 0, 16, 26, IGNORE]);
        assert_eq!((t.classes.len(), t.classes[16], t.classes[26]), (27, "sky", "bicycle"));
    }

    #[test]
    fn an_unknown_id_names_the_file_and_the_value() {
        for (t, bad) in
            [(Taxonomy::coco_stuff(Classes::Stuff15), 182), (Taxonomy::cityscapes(), 34)]
        {
            let e = t.classify(Path::new("x/b.png"), &mut [255, bad]).unwrap_err().to_string();
            assert!(
                e.contains("x/b.png")
                    && e.contains(&format!("value {bad}"))
                    && e.contains("check --dataset"),
                "{e}"
            );
        }
    }
}
