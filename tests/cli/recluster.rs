//! `picie recluster`.

use serde_json::Value;

use super::{Place, holds, scenes, trained};

#[test]
fn another_number_of_clusters_comes_without_training() {
    let place = Place::new();
    let (data, old) = (scenes().display().to_string(), trained().join("checkpoint.safetensors"));
    let same = std::fs::read(&old).unwrap();
    let words = |k: usize, out: &str, data: &str| {
        format!("recluster --checkpoint {} --data {data} --clusters {k} --out {out}", old.display())
    };
    let said = place.picie(&words(5, "five.safetensors", &data)).succeeds().out;
    assert_eq!(said, "5 clusters of 3 images: five.safetensors\n");
    assert!(std::fs::read(&old).unwrap() == same);
    // It is evaluated with the very clusters that eval finds for itself, of the old number.
    let words_of_eval = |file: &str, more: &str| {
        let words = format!("eval --checkpoint {file} --data {data} --json --matching many-to-one");
        let ran = place.picie(&format!("{words} {more}")).succeeds();
        serde_json::from_str::<Value>(&ran.out).unwrap()
    };
    place.picie(&words(9, "nine.safetensors", &data)).succeeds();
    let nine = words_of_eval("nine.safetensors", "");
    let own = words_of_eval(&old.display().to_string(), "--classifier kmeans");
    assert_eq!(nine["confusion"], own["confusion"]);
    assert!(own["segments"].is_null());
    // Labels name the clusters; a folder of the same pictures alone does not.
    let five = words_of_eval("five.safetensors", "");
    assert_eq!(five["clusters"], 5);
    assert!(five["segments"].as_array().unwrap().iter().any(|s| s["name"].is_string()));
    let plain = format!("{data}/images/val2017");
    let said = place.picie(&format!("{} --json", words(5, "p.safetensors", &plain))).succeeds().out;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(said["segments"].as_array().unwrap().iter().all(|s| s["name"].is_null()), "{said}");
    // A photo is segmented with it.
    let photo = std::fs::read_dir(&plain).unwrap().next().unwrap().unwrap().path();
    let words = format!("segment --checkpoint five.safetensors --out out {}", photo.display());
    place.picie(&words).succeeds();
    let said = place.picie("name --checkpoint five.safetensors 5=sky").fails();
    holds(&said, &["no cluster 5, only 0 to 4"]);
}

#[test]
fn what_cannot_be_clustered_is_one_line() {
    let place = Place::new();
    let (data, old) = (scenes().display(), trained().join("epoch-01.safetensors"));
    std::fs::copy(&old, place.join("c.safetensors")).unwrap();
    let words = format!("recluster --checkpoint c.safetensors --data {data} --clusters 5");
    let said = place.picie(&format!("{words} --out c.safetensors")).fails();
    holds(&said, &["would be written over c.safetensors; name another file"]);
    let said = place.picie(&format!("{words} --out c.png")).fails();
    holds(&said, &["a checkpoint is written; call it c.safetensors"]);
}
