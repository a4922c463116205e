//! What can be wrong with the bytes of a weights file; the path joins it in [`Fault::at`].

use std::path::Path;

use crate::base::Error;
use crate::base::kind::Kind;

/// The remedy for weights in another form.
const SAVE: &str = "in PyTorch, save the network's state_dict with safetensors.torch.save_file";

pub type Result<T> = std::result::Result<T, Fault>;

#[derive(Debug, PartialEq)]
pub enum Fault {
    /// The bytes end early or contradict themselves.
    Damaged(String),
    /// A pickle names a Python object that is not on the allow list.
    Forbidden(String),
    /// Sound, but not something this reader knows.
    Unsupported(String),
    /// Sound or not, memory does not hold what it unpacks to: more than so many bytes.
    Large(u64),
    /// Something else than weights; `None`: nobody knows what.
    Unknown(Option<Kind>),
}

impl Fault {
    pub fn damaged(what: impl ToString) -> Self {
        Fault::Damaged(what.to_string())
    }

    pub fn unsupported(what: impl ToString) -> Self {
        Fault::Unsupported(what.to_string())
    }

    /// The error that the user sees: file, what is wrong with it, and what helps.
    pub fn at(self, path: &Path) -> Error {
        match self {
            Fault::Damaged(what) => Error::file(
                path,
                format!("damaged weights file: {what}"),
                "copy or download it again",
            ),
            Fault::Forbidden(name) => Error::file(
                path,
                format!(
                    "the pickle asks for the Python object {name:?}, and only tensors and plain containers are read"
                ),
                "if you trust the file, load it in PyTorch and save its tensors with safetensors.torch.save_file",
            ),
            Fault::Unsupported(what) => Error::file(path, what, SAVE),
            Fault::Large(bytes) => Error::file(
                path,
                format!("unpacked, it takes more than the {} MiB that may be used", bytes >> 20),
                "free some memory or raise its limit, or save the network alone",
            ),
            Fault::Unknown(kind) => {
                let what = "neither a safetensors file nor a PyTorch checkpoint";
                match kind {
                    Some(kind) => {
                        let what = format!("this is {}, {what}", kind.name);
                        Error::file(path, what, kind.remedy(SAVE))
                    }
                    None => Error::file(path, what, SAVE),
                }
            }
        }
    }
}
