//! The flags about the user's cache folder.

/// Whether decoded images are kept from one start to the next.
#[derive(Clone, Debug, clap::Args)]
pub struct KeepArgs {
    /// Decode the images anew, and do not keep them in the user's cache folder for the next start
    #[arg(help_heading = "Data", long)]
    pub no_cache: bool,
}

#[derive(Debug, clap::Args)]
pub struct CacheArgs {
    /// Remove the decoded images and cuDNN's measured engines, which are made again when needed.
    /// Drawn scenes stay, because runs refer to them
    #[arg(long)]
    pub clear: bool,
    /// Print one line of JSON
    #[arg(help_heading = "Output", long)]
    pub json: bool,
}
