//! What torchvision's files of each backbone are to a network of each.

use picie::net::weights::{Origin, load};
use picie::net::{Architecture, Backbone, expected};

use super::weights::golden;

/// `golden/weights.py` writes the names and shapes of torchvision's own networks.
#[test]
fn torchvisions_files_are_of_their_backbone_alone() {
    for file in Backbone::ALL {
        let path = golden(&format!("{}.pth", file.name));
        for backbone in Backbone::ALL {
            let result = load(&path, &expected(Architecture::of(backbone)));
            if file == backbone {
                let (weights, origin) = result.unwrap();
                assert_eq!(origin, Origin::Torchvision);
                let laterals = |name: &str| name.starts_with("fpn.");
                let want = expected(Architecture::of(backbone));
                let want = want.iter().filter(|(name, _)| !laterals(name)).count();
                assert_eq!(weights.tensors.len(), want, "{}", file.name);
            } else {
                let e = result.unwrap_err().to_string();
                let (got, want) = (file.title, backbone.title);
                let what = format!("these are weights of a {got}, and the network is a {want}");
                let remedy = format!("use --backbone {}", file.name);
                assert!(e.contains(&what) && e.ends_with(&remedy) && !e.contains('\n'), "{e}");
            }
        }
    }
}

/// A network of a backbone's first stages takes them from the whole file, and knows them there.
#[test]
fn first_stages_are_of_their_backbone_alone() {
    for levels in [1, 2] {
        for file in Backbone::ALL {
            let path = golden(&format!("{}.pth", file.name));
            for backbone in Backbone::ALL {
                let part = Architecture { levels, ..Architecture::of(backbone) };
                let result = load(&path, &expected(part));
                assert_eq!(result.is_ok(), file == backbone, "{} in {part:?}", file.name);
                let remedy = format!("use --backbone {}", file.name);
                assert!(result.map_or_else(|e| e.to_string().ends_with(&remedy), |_| true));
            }
        }
    }
}
