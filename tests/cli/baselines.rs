//! `picie baselines`, and what `picie eval` says of images without labels.

use serde_json::Value;

use super::{Place, holds, scenes, trained};

/// Rows in the order of the table.
const ROWS: [&str; 7] = [
    "largest class",
    "Lab",
    "Lab + height",
    "random network",
    "imagenet, random laterals",
    "imagenet, PCA laterals",
    "imagenet, layer3, layer4",
];

#[track_caller]
fn json(place: &Place, words: &str) -> Value {
    let ran = place.picie(words).succeeds();
    assert_eq!((ran.out.lines().count(), ran.out.ends_with('\n')), (1, true), "{ran:?}");
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn labelled_images_have_scores_of_what_trains_nothing() {
    let place = Place::new();
    let words = format!("baselines --data {} --clusters 9 --size 64", scenes().display());
    let text = place.picie(&format!("{words} --seeds 1,2")).succeeds().out;
    let rows: Vec<&str> = ROWS
        .map(|name| text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap())
        .into();
    // The labels' largest class has no seeds; all else is a mean and a deviation.
    assert!(
        !rows[0].contains('±') && rows[1..].iter().all(|row| row.matches('±').count() == 3),
        "{text}"
    );
    holds(&text, &["baseline", "acc", "mIoU", "64 × 64"]);

    let got = json(&place, &format!("{words} --json"));
    let names: Vec<&String> = got.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), ROWS.len(), "{names:?}");
    for name in ROWS {
        let scores = got[name].as_array().unwrap();
        let acc = scores[0]["acc"].as_f64().unwrap();
        assert!(scores.len() == 1 && acc > 10.0 && acc < 100.0, "{name}: {scores:?}");
    }
    // Of the labels alone, whatever is clustered.
    let pixels: Vec<u64> =
        confusion(&place, "--size 64").iter().map(|row| row.iter().sum()).collect();
    let largest = 100.0 * *pixels.iter().max().unwrap() as f64 / pixels.iter().sum::<u64>() as f64;
    assert_eq!(got["largest class"][0]["acc"], largest);
    let other = json(&place, &format!("{words} --json --seeds 7 --matching many-to-one"));
    assert_eq!(other["largest class"], got["largest class"]);
    for name in &ROWS[1..] {
        assert_ne!(other[*name], got[*name], "{name}");
    }
    // Colours of the sky at the top and of the ground below are told apart by height.
    assert!(got["Lab + height"][0]["acc"].as_f64() > got["Lab"][0]["acc"].as_f64(), "{got}");
    // Without trained weights the rows that want them are left out.
    let none = json(&place, &format!("{words} --json --weights none"));
    assert_eq!(none.as_object().unwrap().len(), 4);
    assert_eq!(none["random network"], got["random network"]);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

/// The confusion of the finished run on the scenes, by class and cluster.
fn confusion(place: &Place, more: &str) -> Vec<Vec<u64>> {
    let checkpoint = trained().join("epoch-02.safetensors");
    let words = format!(
        "eval --json --checkpoint {} --data {} {more}",
        checkpoint.display(),
        scenes().display()
    );
    serde_json::from_value(json(place, &words)["confusion"].clone()).unwrap()
}

/// What is measured of a row without labels, each share in percent.
#[track_caller]
fn look(row: &Value) -> [f64; 7] {
    let got = ["mirror", "crop", "size", "borders", "chance", "used", "largest"]
        .map(|name| row[name].as_f64().unwrap());
    assert!(got.iter().all(|share| (0.0..=100.0).contains(share)), "{row}");
    got
}

#[test]
fn images_without_labels_are_asked_what_keeps() {
    let place = Place::new();
    let photos = scenes().join("images/val2017");
    let words = format!("baselines --data {} --clusters 4 --size 64", photos.display());
    let got = json(&place, &format!("{words} --json"));
    assert_eq!(got.as_object().unwrap().len(), ROWS.len() - 1);
    for name in &ROWS[1..] {
        let rows = got[*name].as_array().unwrap();
        let [mirror, .., used, largest] = look(&rows[0]);
        assert!(
            rows.len() == 1 && mirror > 20.0 && used == 4.0 && (25.0..100.0).contains(&largest),
            "{name}: {rows:?}"
        );
    }
    // Colours know nothing of left and right; a random network does, and one that saw mirrored
    // photos less.
    assert_eq!((look(&got["Lab"][0])[0], look(&got["Lab + height"][0])[0]), (100.0, 100.0));
    let mirror = |name: &str| look(&got[name][0])[0];
    assert!(mirror("random network") < mirror("imagenet, PCA laterals"), "{got}");
    let text = place.picie(&words).succeeds().out;
    holds(&text, &["Lab + height", "3 images without labels", "has 32 pixels instead of 64"]);

    // A checkpoint, in the same words.
    let eval = format!(
        "eval --checkpoint {} --data {}",
        trained().join("epoch-02.safetensors").display(),
        photos.display()
    );
    let got = json(&place, &format!("{eval} --json"));
    assert_eq!((&got["images"], &got["clusters"]), (&3.into(), &9.into()));
    let trained = look(&got["unlabelled"]);
    assert_eq!(look(&json(&place, &format!("{eval} --json"))["unlabelled"]), trained);
    assert_ne!(
        look(&json(&place, &format!("{eval} --json --classifier kmeans"))["unlabelled"]),
        trained
    );
    assert_ne!(look(&json(&place, &format!("{eval} --json --size 96"))["unlabelled"]), trained);
    // The same clusters as where labels are at hand: every pixel of the scenes has one.
    let columns = confusion(&place, "")
        .into_iter()
        .reduce(|a, b| a.iter().zip(b).map(|(a, b)| a + b).collect())
        .unwrap();
    let total: u64 = columns.iter().sum();
    assert_eq!(trained[5], columns.iter().filter(|&&pixels| pixels > 0).count() as f64);
    assert_eq!(trained[6], 100.0 * *columns.iter().max().unwrap() as f64 / total as f64);
    holds(
        &place.picie(&eval).succeeds().out,
        &["3 images without labels", "mirror", "on edges", "largest"],
    );
}

#[test]
fn labels_that_are_asked_for_must_be_there() {
    let place = Place::new();
    let data = place.scenes("data");
    std::fs::remove_dir_all(data.join("annotations/val2017")).unwrap();
    let eval = format!("eval --checkpoint {}", trained().join("epoch-02.safetensors").display());
    let baselines = "baselines --clusters 7 --size 32 --weights none";
    for command in [&eval, baselines] {
        let ran = place.picie(&format!("{command} --data data")).succeeds();
        holds(&ran.err, &["measured without labels: no image of val has a label map: "]);
        holds(&ran.out, &["3 images without labels"]);
        for flag in ["--classes 27", "--matching many-to-one"] {
            let why = place.picie(&format!("{command} --data data {flag}")).fails();
            holds(&why, &["none of the 3 images can be used", "no label map for this image"]);
            let why = place.picie(&format!("{command} --data data/images/val2017 {flag}")).fails();
            holds(
                &why,
                &[
                    "a plain folder of images has no labels to compare with",
                    "give a data set in the layout of",
                ],
            );
        }
    }
    for flag in ["--tta", "--flip-tta"] {
        let why = place.picie(&format!("{eval} --data data/images/val2017 {flag}")).fails();
        holds(&why, &["a plain folder of images has no labels to compare with"]);
    }
    // The labels of the other split are there.
    holds(
        &place.picie(&format!("{eval} --data data --split train")).succeeds().out,
        &["6 images: acc"],
    );
}

#[test]
fn numbers_that_cannot_be_are_one_line() {
    let place = Place::new();
    let cases = [
        ("--clusters 1", "--clusters 1; use 2 to 65535"),
        ("--clusters 70000", "--clusters 70000; use 2 to 65535"),
        ("--clusters 9 --size 100", "--size 100; use a multiple of 32"),
        (
            "--clusters 27 --matching identity",
            "--matching identity; clusters of k-means are no classes: use one-to-one",
        ),
        ("--clusters 9 --limit 0", "--limit 0; use at least 1"),
        (
            "--clusters 3",
            "classes occur in the labels, more than 3 clusters can be matched with; use at least",
        ),
        (
            "--clusters 9 --train-split night",
            "there is no split \"night\" here; choose among train, val",
        ),
        ("--clusters 9 --weights gone.pth", "gone.pth: no such file or directory; check the path"),
        (
            "--clusters 385 --size 32 --matching many-to-one",
            "384 points cannot form 385 clusters; use more images",
        ),
    ];
    for (words, why) in cases {
        holds(
            &place.picie(&format!("baselines --data {} {words}", scenes().display())).fails(),
            &[why],
        );
    }
}
