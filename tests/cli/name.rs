//! `picie name`, and the names that training gives.

use picie::net::weights;
use serde_json::Value;

use super::{Place, holds, scenes, trained};

/// The clusters that a command lists: name and colour.
fn listed(json: &str) -> Vec<(Option<String>, String)> {
    let value: Value = serde_json::from_str(json).unwrap();
    let segments = value["segments"].as_array().unwrap().iter().enumerate();
    let entry = |(i, segment): (usize, &Value)| {
        assert_eq!(segment["id"], i);
        let colour = segment["colour"].as_str().unwrap().to_string();
        (segment["name"].as_str().map(String::from), colour)
    };
    segments.map(entry).collect()
}

#[test]
fn clusters_are_called_as_labels_say_until_the_user_does() {
    let place = Place::new();
    let epoch = trained().join("epoch-02.safetensors");
    std::fs::copy(trained().join("checkpoint.safetensors"), place.join("c.safetensors")).unwrap();
    let name = |words: &str| {
        listed(&place.picie(&format!("name --checkpoint c.safetensors --json {words}")).out)
    };
    let first = name("");
    assert_eq!(first.len(), 9);
    // Labels named those that some pixel is in, and one name has one colour.
    assert!(first.iter().any(|(name, _)| name.is_some()), "{first:?}");
    for (a, b) in first.iter().flat_map(|a| first.iter().map(move |b| (a, b))) {
        assert!(a.0.is_none() || (a.0 == b.0) == (a.1 == b.1), "{a:?} {b:?}");
    }
    let list = format!("name --json --checkpoint {}", epoch.display());
    assert_eq!(listed(&place.picie(&list).succeeds().out), first);
    let before = weights::read(&place.join("c.safetensors")).unwrap();

    let second = name("3=my_sea 5=meadow 4=");
    assert_eq!(second[3].0.as_deref(), Some("my_sea"));
    assert_eq!((second[5].0.as_deref(), &second[4].0), (Some("meadow"), &None));
    assert_eq!(name(""), second);
    let text = place.picie("name --checkpoint c.safetensors").succeeds().out;
    let meadow = text.lines().find(|line| line.ends_with("meadow")).unwrap();
    assert_eq!(meadow, format!("  5  {}  meadow", second[5].1));
    // Nothing else in the file is another, and it is evaluated with these names.
    let after = weights::read(&place.join("c.safetensors")).unwrap();
    assert!(before.tensors == after.tensors && before.metadata != after.metadata);
    let words = format!("eval --checkpoint c.safetensors --data {} --json", scenes().display());
    assert_eq!(listed(&place.picie(&words).succeeds().out), second);
}

#[test]
fn names_that_cannot_be_given_change_nothing() {
    let place = Place::new();
    let file = place.join("c.safetensors");
    std::fs::copy(trained().join("epoch-01.safetensors"), &file).unwrap();
    let same = std::fs::read(&file).unwrap();
    let said = place.picie("name --checkpoint c.safetensors 3=sky 9=sea").fails();
    holds(&said, &["c.safetensors: there is no cluster 9, only 0 to 8; list them"]);
    let twice = place.picie("name --checkpoint c.safetensors 3=sky 3=sea").fails();
    holds(&twice, &["cluster 3 gets two names; give it one"]);
    for bad in ["sky", "x=sky", "-1=sky"] {
        let ran = place.picie(&format!("name --checkpoint c.safetensors -- {bad}"));
        assert_eq!(ran.code, Some(2), "{ran:?}");
        holds(&ran.err, &["use NUMBER=NAME, such as 3=sky"]);
    }
    holds(&place.picie("name --checkpoint gone 3=sky").fails(), &["gone: no such file"]);
    assert!(std::fs::read(&file).unwrap() == same);
}

/// Files of older versions have no names, and clusters the colours that they always had.
#[test]
fn a_checkpoint_of_before_has_no_names() {
    let place = Place::new();
    let mut file = weights::read(&trained().join("epoch-01.safetensors")).unwrap();
    let text = file.metadata.get_mut("picie").unwrap();
    let mut state: Value = serde_json::from_str(text).unwrap();
    assert!(state.as_object_mut().unwrap().remove("segments").is_some());
    *text = state.to_string();
    weights::write(&place.join("old.safetensors"), &file).unwrap();
    let out = place.picie("name --checkpoint old.safetensors").succeeds().out;
    assert_eq!(out.lines().next().unwrap(), "  0  #e69f00  -");
    assert_eq!(out.lines().filter(|line| line.ends_with("  -")).count(), 9);
}
