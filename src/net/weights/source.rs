//! Where the weights of a network come from before anything is learned.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Origin, Weights, canonical, parse, plausible, read_bytes};
use crate::base::{Error, Result};
use crate::net::{Architecture, Backbone, RESNET18, expected};

/// A ResNet-18 trained on ImageNet, part of the binary; provenance and licence lie beside the file.
const IMAGENET: &[u8] = include_bytes!("imagenet/resnet18.safetensors");

/// What a network starts from, as `--weights` and `run.json` name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Source {
    /// `imagenet`: the ResNet-18 inside the binary.
    Imagenet,
    /// `none`: random numbers.
    None,
    /// `torchvision`: torchvision's own file of the backbone, which torch keeps in the user's cache
    /// folder.
    Torchvision,
    /// Any other word: a file of one of the formats that [`weights::read`](super::read) knows.
    File(PathBuf),
}

impl From<String> for Source {
    fn from(text: String) -> Self {
        match text.as_str() {
            "imagenet" => Source::Imagenet,
            "none" => Source::None,
            "torchvision" => Source::Torchvision,
            _ => Source::File(text.into()),
        }
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Source::Imagenet => f.write_str("imagenet"),
            Source::None => f.write_str("none"),
            Source::Torchvision => f.write_str("torchvision"),
            Source::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Weights to start from, and which they are.
#[derive(Clone, Debug)]
pub struct Start {
    /// Under this engine's names, held to the network's shapes; None: random numbers.
    pub weights: Option<Weights>,
    pub provenance: Provenance,
    /// Of the tensors that its file holds, how many the network takes.
    pub taken: Option<Taken>,
    /// What is odd about weights that are accepted all the same.
    pub warning: Option<String>,
}

/// How much of a file of weights a network takes: numbers of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub read: usize,
    /// Among them the classifier of a network for ImageNet, and counts of batches.
    pub left_out: usize,
}

/// Which weights a run started from, for `run.json` and checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    pub source: Source,
    /// Of the file's bytes, in hexadecimal; None: random numbers.
    pub sha256: Option<String>,
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match (&self.source, &self.sha256) {
            (Source::Imagenet, Some(hash)) => {
                write!(f, "ImageNet weights in this binary (sha256 {})", &hash[..8])
            }
            (source, Some(hash)) => write!(f, "{source} (sha256 {})", &hash[..8]),
            (_, None) => f.write_str("random weights"),
        }
    }
}

impl Start {
    /// Random weights.
    pub fn random() -> Self {
        Start {
            weights: None,
            provenance: Provenance { source: Source::None, sha256: None },
            taken: None,
            warning: None,
        }
    }

    /// Whether the weights bring the laterals of the pyramid along.
    pub fn has_laterals(&self) -> bool {
        self.weights.as_ref().is_some_and(|w| w.tensors.contains_key("fpn.lateral2.weight"))
    }
}

impl Source {
    /// Reads the weights for a network of `architecture`.
    ///
    /// Errors: a file that is missing, damaged, of another network, or with values that are not
    /// finite; `imagenet` for another backbone than ResNet-18, or a network that reads more than
    /// pictures; `torchvision` where torch's cache folder has no such file.
    pub fn open(&self, architecture: Architecture) -> Result<Start> {
        let (path, bytes) = match self {
            Source::None => return Ok(Start::random()),
            Source::Imagenet if architecture.backbone != &RESNET18 => {
                let Backbone { name, title, .. } = architecture.backbone;
                return Err(Error::input(
                    format!(
                        "--backbone {name}: the ImageNet weights in this binary are a ResNet-18's"
                    ),
                    format!(
                        "give a {title}'s with --weights FILE or --weights torchvision, or start \
                         from random numbers with --weights none"
                    ),
                ));
            }
            Source::Imagenet if architecture.sobel => {
                return Err(Error::input(
                    "--weights imagenet: the weights in this binary read pictures, not their Sobel gradient",
                    "leave out --sobel, or start from random numbers with --weights none",
                ));
            }
            Source::Imagenet => (Path::new("imagenet"), Cow::Borrowed(IMAGENET)),
            Source::Torchvision => {
                let path = torchvision(&torch_home(), architecture.backbone)?;
                return Source::File(path).open(architecture);
            }
            Source::File(path) => (&**path, Cow::Owned(read_bytes(path)?)),
        };
        let sha256 = hex(&Sha256::digest(&bytes));
        let weights = parse(&bytes).map_err(|fault| fault.at(path))?;
        let all = weights.tensors.len();
        let expected = expected(architecture);
        let (weights, origin) = canonical(weights, path, &expected)?;
        let warning =
            (origin == Origin::Torchvision).then(|| plausible::input(&weights, path)).flatten();
        let provenance = Provenance { source: self.clone(), sha256: Some(sha256) };
        let read = expected.iter().filter(|(name, _)| weights.tensors.contains_key(name)).count();
        let taken = Some(Taken { read, left_out: all - read });
        Ok(Start { weights: Some(weights), provenance, taken, warning })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The folder that torch keeps downloads in: `$TORCH_HOME`, or `torch` in the user's cache folder.
fn torch_home() -> PathBuf {
    let cache = || {
        std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(dirs::home_dir()?.join(".cache")))
    };
    let home =
        std::env::var_os("TORCH_HOME").map(PathBuf::from).or_else(|| Some(cache()?.join("torch")));
    home.unwrap_or_default()
}

/// torchvision's weights of a backbone below torch's folder: a file whose name ends with the first
/// eight digits of its own sha256.
fn torchvision(home: &Path, backbone: &Backbone) -> Result<PathBuf> {
    let Backbone { name: model, title, .. } = backbone;
    let folder = home.join("hub/checkpoints");
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.sort();
    for path in found {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let rest = name.strip_prefix(*model).and_then(|rest| rest.strip_prefix('-'));
        let Some(hash) = rest.and_then(|rest| rest.strip_suffix(".pth")) else { continue };
        if !hex(&Sha256::digest(read_bytes(&path)?)).starts_with(hash) {
            return Err(Error::file(
                &path,
                "its bytes are not those its name promises",
                "delete it, and let torchvision get it again",
            ));
        }
        return Ok(path);
    }
    Err(Error::file(
        folder,
        format!("torchvision's {title} is not here"),
        format!(
            "get it with: python3 -c \"import torchvision; \
             torchvision.models.{model}(weights='IMAGENET1K_V1')\""
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::RESNET50;

    #[test]
    fn the_weights_in_the_binary_are_the_ones_that_were_chosen() {
        let start = Source::Imagenet.open(Architecture::RESNET18).unwrap();
        let hash = "7730c6ef5ad695eac9d70931d3161e5fe6bdfe06acf416646d0dbab8f56bf4a5";
        assert_eq!(start.provenance.sha256.as_deref(), Some(hash));
        assert_eq!(start.warning, None);
        assert!(!start.has_laterals());
    }

    #[test]
    fn a_source_is_the_word_that_names_it() {
        for text in ["imagenet", "none", "torchvision", "some/file.pth"] {
            let source = Source::from(text.to_string());
            assert_eq!(source.to_string(), text);
            assert_eq!(matches!(source, Source::File(_)), text.contains('/'));
        }
    }

    #[test]
    fn torchvisions_file_is_known_by_name_and_hash() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("hub/checkpoints");
        let missing = torchvision(home.path(), &RESNET18).unwrap_err().to_string();
        assert!(missing.contains("torchvision.models.resnet18"), "{missing}");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("resnet18-00000000.pth"), b"weights").unwrap();
        let wrong = torchvision(home.path(), &RESNET18).unwrap_err().to_string();
        assert!(wrong.contains("not those its name promises"), "{wrong}");
        std::fs::remove_file(folder.join("resnet18-00000000.pth")).unwrap();
        let named = folder.join(format!("resnet18-{}.pth", &hex(&Sha256::digest(b"weights"))[..8]));
        std::fs::write(&named, b"weights").unwrap();
        assert_eq!(torchvision(home.path(), &RESNET18).unwrap(), named);
        let missing = torchvision(home.path(), &RESNET50).unwrap_err().to_string();
        assert!(missing.contains("torchvision.models.resnet50"), "{missing}");
    }
}
