//! The flags of `picie name`.

use std::path::PathBuf;
use std::str::FromStr;

/// A cluster and what it shall be called: `3=sky`, or `3=` for no name.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    /// The number of the cluster.
    pub id: usize,
    /// `None`: it loses its name.
    pub name: Option<String>,
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(id, name)| Some((id.parse().ok()?, name)));
        let (id, name) = parts.ok_or("use NUMBER=NAME, such as 3=sky")?;
        let name = name.trim();
        if name.chars().any(char::is_control) || name.chars().count() > 100 {
            return Err("a name is one line of at most 100 letters".into());
        }
        Ok(Name { id, name: (!name.is_empty()).then(|| name.into()) })
    }
}

#[derive(Debug, clap::Args)]
pub struct NameArgs {
    /// A checkpoint of picie, which is written anew
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Print one line of JSON
    #[arg(help_heading = "Output", long)]
    pub json: bool,
    /// Names by the clusters' numbers in label maps; nothing behind = takes one away. Clusters of
    /// one name get one colour
    #[arg(value_name = "ID=NAME")]
    pub names: Vec<Name>,
}
