//! What `picie eval` prints: the scores in one line of JSON, or tables of classes, parts and
//! clusters.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::base::Result;
use crate::eval::{ClassOf, ClassScore, Confusion, PartScore, Scores};
use crate::report::table::{number, plain, scored_at};

/// The scores of an evaluation, as the `--json` line has them. Shares are percent; `null` stands
/// for a mean of nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    pub acc: f64,
    pub miou: f64,
    pub miou_present: f64,
    pub images: usize,
    /// The side of the network's input and of the label maps, in pixels.
    pub size: usize,
    pub classes: usize,
    pub clusters: usize,
    /// The confusion matrix (C, K): row = ground-truth class, column = cluster.
    pub confusion: Vec<Vec<u64>>,
    /// The class number each cluster (K) was matched with.
    pub class_of_cluster: ClassOf,
    pub per_class: Vec<NamedClass>,
    pub parts: Vec<PartScore>,
}

/// The scores of a class with its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedClass {
    pub name: String,
    #[serde(flatten)]
    pub score: ClassScore,
}

impl EvalReport {
    /// The report of `m` (C, K), counted on `images` images at the input side `size`. `names` (C)
    /// are those of the classes, `parts` named ranges of classes. Refuses a table without a
    /// labelled pixel.
    pub fn new(
        m: &Confusion,
        class_of: &ClassOf,
        images: usize,
        size: usize,
        names: &[String],
        parts: &[(&str, Range<usize>)],
    ) -> Result<Self> {
        let scores = Scores::new(m, class_of, parts)?;
        let named = |(score, name): (ClassScore, &String)| NamedClass { name: name.clone(), score };
        Ok(EvalReport {
            acc: scores.acc,
            miou: scores.miou,
            miou_present: scores.miou_present,
            images,
            size,
            classes: m.classes,
            clusters: m.clusters,
            confusion: (0..m.classes).map(|c| m.row(c).to_vec()).collect(),
            class_of_cluster: class_of.clone(),
            per_class: scores.classes.into_iter().zip(names).map(named).collect(),
            parts: scores.parts,
        })
    }

    /// The confusion matrix after the matching (C, C + 1): row = ground-truth class, column = class
    /// that is seen, the last for clusters without a class.
    pub fn counted(&self) -> Vec<Vec<u64>> {
        let row = |counts: &Vec<u64>| {
            let mut row = vec![0; self.classes + 1];
            for (count, class) in counts.iter().zip(&self.class_of_cluster) {
                row[class.unwrap_or(self.classes)] += count;
            }
            row
        };
        self.confusion.iter().map(row).collect()
    }

    /// The report as text: classes with their clusters, then the parts, then the whole.
    pub fn text(&self) -> String {
        let classes = plain(
            &["class", "cluster", "IoU %", "acc %", "pixels", "predicted"],
            1,
            self.per_class.iter().enumerate().map(|(class, NamedClass { name, score })| {
                let clusters =
                    (0..self.clusters).filter(|&k| self.class_of_cluster[k] == Some(class));
                let clusters = clusters.map(|k| k.to_string()).collect::<Vec<_>>().join(" ");
                let (iou, acc) = (number(score.iou, 2), number(score.acc, 2));
                vec![
                    name.clone(),
                    clusters,
                    iou,
                    acc,
                    score.labelled.to_string(),
                    score.predicted.to_string(),
                ]
            }),
        );
        let unmatched = (0..self.clusters).filter(|&k| self.class_of_cluster[k].is_none()).count();
        let mut text = format!("{classes}\n");
        if unmatched > 0 {
            text += &format!(
                "{unmatched} of {} clusters have no class; their pixels count as wrong.\n",
                self.clusters
            );
        }
        for part in &self.parts {
            text += &format!(
                "{}: acc {} %, mIoU {} %\n",
                part.name,
                number(part.acc, 2),
                number(part.miou, 2)
            );
        }
        let (acc, miou, present) = (self.acc, self.miou, self.miou_present);
        text + &format!(
            "{} images: acc {acc:.2} %, mIoU {miou:.2} % ({present:.2} % over classes in the labels)\n{}",
            self.images,
            scored_at(self.size)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::hungarian;

    fn report() -> EvalReport {
        let m =
            Confusion { classes: 3, clusters: 4, counts: vec![0, 6, 2, 0, 9, 1, 0, 0, 0, 0, 0, 0] };
        let names = ["sky", "water", "animal"].map(str::to_string);
        EvalReport::new(&m, &hungarian(&m), 5, 64, &names, &[("stuff", 0..2), ("things", 2..3)])
            .unwrap()
    }

    #[test]
    fn json_is_one_line_with_the_promised_names_and_comes_back() {
        let line = serde_json::to_string(&report()).unwrap();
        assert!(!line.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        for name in ["acc", "miou", "miou_present", "images", "size", "classes"] {
            assert!(value[name].is_number(), "{name}");
        }
        assert_eq!(
            value["confusion"],
            serde_json::json!([[0, 6, 2, 0], [9, 1, 0, 0], [0, 0, 0, 0]])
        );
        assert_eq!(
            (&value["per_class"][1]["name"], &value["per_class"][1]["labelled"]),
            (&"water".into(), &10.into())
        );
        assert_eq!(value["per_class"][1]["correct"], 9);
        assert_eq!(
            (&value["class_of_cluster"][0], &value["class_of_cluster"][1]),
            (&1.into(), &0.into())
        );
        let back: EvalReport = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (back.confusion, back.class_of_cluster),
            (report().confusion, report().class_of_cluster)
        );
    }

    #[test]
    fn the_table_says_which_cluster_is_which_class() {
        let text = report().text();
        let row = text.lines().find(|l| l.contains("water")).unwrap();
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["water", "0", "90.00", "90.00", "10", "9"]
        );
        for part in [
            "1 of 4 clusters",
            "stuff: acc 83.33 %",
            "things: acc - %",
            "5 images: acc 83.33 %",
            "64 × 64",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
