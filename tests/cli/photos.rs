//! A folder of photos without labels: the recipe for it, and what is chosen from the images.

use std::path::Path;

use serde_json::Value;

use super::{Place, files, holds, scenes};

/// As TINY, but what the recipe `photos` leaves to the images.
const SMALL: &str =
    "--size 32 --stored 64 --batch 2 --batch-cluster 4 --init-batches 1 --kmeans-iters 3";

/// A folder of the six training scenes, without their labels.
fn photos(place: &Place) {
    std::fs::create_dir(place.join("photos")).unwrap();
    for file in files(&scenes().join("images/train2017")) {
        std::fs::copy(
            scenes().join("images/train2017").join(&file),
            place.join("photos").join(&file),
        )
        .unwrap();
    }
}

fn recipe(run: &Path) -> Value {
    let settings: Value =
        serde_json::from_slice(&std::fs::read(run.join("run.json")).unwrap()).unwrap();
    settings["recipe"].clone()
}

/// The table of the numbers of clusters.
fn table(err: &str) -> Vec<&str> {
    let rows = err.lines().skip_while(|line| !line.starts_with("clusters  objective"));
    rows.filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()))
        .take(7)
        .collect()
}

#[test]
fn a_folder_of_photos_gets_its_recipe_and_its_clusters_and_keeps_them() {
    let place = Place::new();
    photos(&place);
    let ran = place.picie(&format!("train --data photos --run run --epochs 1 {SMALL}")).succeeds();
    let said = [
        "recipe photos (a folder without labels, on the CPU; --recipe picie for the paper's numbers)\n",
    ];
    holds(&ran.err, &said);
    let rows = table(&ran.err);
    assert_eq!(rows.len(), 7, "{ran:?}");
    let chosen: Vec<&&str> = rows.iter().filter(|row| row.ends_with("chosen")).collect();
    assert_eq!(chosen.len(), 1, "{rows:?}");
    let clusters: u64 = chosen[0].split_whitespace().next().unwrap().parse().unwrap();
    let saved = recipe(&place.join("run"));
    assert_eq!((&saved["name"], &saved["clusters"]), (&"photos".into(), &clusters.into()));
    let planned = format!("6 images, recipe photos, {clusters} clusters; memory: ");
    holds(
        &ran.err,
        &[
            &planned,
            "3 optimizer steps an epoch, 3 in 1 epochs\n",
            " to go, by the time of the first",
        ],
    );
    // Six images are few for a recipe's epochs, too.
    holds(&ran.err, &["warning: an epoch has 3 optimizer steps"]);
    let labels = image::open(place.join("run/pictures/sheet.png")).unwrap();
    assert!(labels.width() > 0);

    let resume = |more: &str| place.picie(&format!("train --resume --run run {more}"));
    for same in ["", "--clusters auto", "--recipe photos --data photos"] {
        let again = resume(same).succeeds();
        assert_eq!(recipe(&place.join("run")), saved, "{same}");
        assert_eq!(table(&again.err).len(), 0, "{again:?}");
    }
    holds(
        &resume("--clusters 5").fails(),
        &["the run was started with other settings than these flags: clusters ", ", now 5; leave"],
    );

    // The same seed chooses the same, of the same numbers.
    let twin = place
        .picie(&format!("train --data photos --run twin --epochs 1 --clusters auto {SMALL}"))
        .succeeds();
    assert_eq!(table(&twin.err), rows);
    assert_eq!(recipe(&place.join("twin")), saved);
}

#[test]
fn who_says_a_number_gets_it() {
    let place = Place::new();
    photos(&place);
    for (run, clusters) in [("flag", "--clusters 5"), ("set", "--set clusters=5")] {
        let words = format!("train --data photos --run {run} --set epochs=1 {clusters} {SMALL}");
        let ran = place.picie(&words).succeeds();
        assert_eq!(table(&ran.err).len(), 0, "{ran:?}");
        let saved = recipe(&place.join(run));
        assert_eq!((&saved["clusters"], &saved["epochs"]), (&5.into(), &1.into()));
    }
    // One image: nothing to choose by, and 20 steps.
    let one = place.picie(&format!("train --data photos --run one --limit 1 {SMALL}")).succeeds();
    holds(
        &one.err,
        &[
            "8 clusters: one image has no halves to choose by\n",
            "1 optimizer steps an epoch, 20 in 20 epochs",
        ],
    );
    assert!(!one.err.contains("warning: an epoch"), "{one:?}");
}

#[test]
fn labels_ask_for_the_papers_recipe_and_for_as_many_clusters_as_they_match() {
    let place = Place::new();
    let words =
        format!("train --data {} --run run --clusters auto --epochs 1 {SMALL}", scenes().display());
    let ran = place.picie(&words).succeeds();
    assert!(!ran.err.contains("recipe photos ("), "{ran:?}");
    let saved = recipe(&place.join("run"));
    // Seven classes occur in the labels.
    assert_eq!(saved["name"], "picie");
    assert!((7..=12).contains(&saved["clusters"].as_u64().unwrap()), "{saved}");
    assert!(table(&ran.err)[0].starts_with('7'), "{ran:?}");

    let iic =
        place.picie(&format!("train --data {} --recipe iic --clusters auto", scenes().display()));
    holds(&iic.fails(), &["--clusters auto in the recipe iic; it is for recipes with k-means"]);
    holds(&place.picie("bench --clusters auto").fails(), &["--clusters auto; say a number"]);
    holds(&place.picie("train --clusters some").err, &["use auto or a number"]);
}
