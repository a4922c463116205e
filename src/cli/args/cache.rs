//! The user's cache folder.

/// Whether decoded images are kept from one start to the next.
#[derive(Clone, Debug, clap::Args)]
pub struct KeepArgs {
    /// Decode the images, and keep none of them in the user's cache folder for the next start
    #[arg(long)]
    pub no_cache: bool,
}

#[derive(Debug, clap::Args)]
pub struct CacheArgs {
    /// Remove the decoded images and the measured engines, which are made again when they are
    /// needed. Drawn scenes stay: runs refer to them
    #[arg(long)]
    pub clear: bool,
}
