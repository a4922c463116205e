//! The command `picie neighbors`, which finds the pixels of a data set that are most similar to
//! given ones.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::base::{Error, Result};
use crate::cli::args::{NeighborsArgs, Query, SetArgs};
use crate::cli::engine::Chosen;
use crate::cli::outputs::{self, Output};
use crate::cli::paths::text;
use crate::cli::pictures::{named, picture};
use crate::cli::say;
use crate::data::transform::Placement;
use crate::data::{ImageStore, Square, decode, transform};
use crate::device::cuda::Autotune;
use crate::device::ops::top::MOST_QUERIES;
use crate::device::{Engine, Layout};
use crate::method::{Batching, Neighbor, Search, Wanted};
use crate::net::STRIDE;
use crate::report::Progress;
use crate::report::neighbors::{Marked, QueryRow, sheet};
use crate::report::pictures::write_rgb;
use crate::train::{Loaded, Trained};

/// Runs the command: prints the neighbors and writes the sheet.
pub fn run(args: &NeighborsArgs) -> Result<()> {
    let engine = Chosen::new(&args.engine, Autotune::Cached)?;
    if args.queries.len() > MOST_QUERIES {
        return Err(Error::input(
            format!("{} queries", args.queries.len()),
            format!("ask at most {MOST_QUERIES} at once"),
        ));
    }
    outputs::check_name(&args.out, "--out", "a PNG", &["png"])?;
    let trained = Trained::read(&args.checkpoint)?;
    let size = trained.recipe.eval_size;
    let from = args.set.turned([trained.exif]);
    let set = from.list_plain()?;
    let files = set.files().chain([&*args.checkpoint]);
    let queries = args.queries.iter().map(|query| Path::new(&query.image));
    outputs::check(&[Output::new(&args.out, "--out")], files.chain(queries), "name another file")?;
    outputs::check_place(&args.out)?;
    let set = from.limited(set);
    let store = from.images(&set, Square::new(size, trained.recipe.fit))?;
    let asked = args.queries.iter().map(|query| Asked::find(query, &store, &from));
    let asked: Vec<Asked> = asked.collect::<Result<_>>()?;
    let found = search(&mut *engine.open()?, args, &trained, &store, &asked)?;

    let (mut rows, mut lines, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for (asked, found) in asked.into_iter().zip(found) {
        lines.push(asked.name.clone());
        let mut own = Vec::new();
        let mut neighbors = Vec::new();
        for neighbor in found {
            let at = (neighbor.x * STRIDE + STRIDE / 2, neighbor.y * STRIDE + STRIDE / 2);
            let place = place(&store, neighbor.image, at);
            lines.push(format!("  {:.4}  {place}", neighbor.score));
            own.push(json!({ "score": neighbor.score, "place": place }));
            let caption = format!("{:.4}", neighbor.score);
            neighbors.push(Marked { picture: picture(&store, neighbor.image)?, at, caption });
        }
        let image = image::RgbImage::from_raw(size as u32, size as u32, asked.pixels)
            .expect("a square of this size");
        let query = Marked { picture: image, at: asked.at, caption: "query".into() };
        all.push(json!({ "query": asked.name, "neighbors": own }));
        rows.push(QueryRow { title: asked.name, query, neighbors });
    }
    write_rgb(&args.out, &sheet(&rows))?;
    if args.json {
        return say(json!({ "queries": all, "sheet": text(&args.out) }));
    }
    lines.push(format!("sheet: {}", args.out.display()));
    say(lines.join("\n"))
}

/// A text that names a point of an image's square as a query would: `IMAGE:x,y`.
fn place(store: &ImageStore, image: usize, (x, y): (usize, usize)) -> String {
    let (item, (width, height)) = (&store.items[image], store.sizes[image]);
    let point = Placement::new(width, height, store.square).to_picture((x as f64, y as f64));
    point.map_or(format!("{}: padding", item.id), |(x, y)| {
        format!("{}:{},{}", item.id, x as usize, y as usize)
    })
}

/// A query, with its picture and pixel as the network sees them.
struct Asked {
    name: String,
    /// (size, size, 3), the picture.
    pixels: Vec<u8>,
    /// The pixel (x, y) in the square.
    at: (usize, usize),
    /// The number of its image in the set, if it is one of them.
    own: Option<usize>,
}

impl Asked {
    /// Finds the image of a query. Fails if there is no such image or pixel.
    fn find(query: &Query, store: &ImageStore, from: &SetArgs) -> Result<Self> {
        let (Query { image, x, y }, exif) = (query, !from.turn.no_exif);
        let name = format!("{image}:{x},{y}");
        let real = |path: &Path| path.canonicalize().ok();
        let same = |a: &Path, b: &Path| real(a).is_some() && real(a) == real(b);
        let path = PathBuf::from(image);
        let (own, path) = if path.is_file() {
            (store.items.iter().position(|item| same(&item.image, &path)), path)
        } else {
            let own = named(store, image)?;
            (Some(own), store.items[own].image.clone())
        };
        let picture = match own {
            Some(own) => store.items[own].picture(exif)?,
            None => decode::rgb(&path, exif)?,
        };
        let (w, h) = (picture.width, picture.height);
        if *x >= w || *y >= h {
            let what = format!("--query {name}: outside of the image, which has {w} × {h} pixels");
            return Err(Error::input(what, format!("use x below {w} and y below {h}")));
        }
        let placement = Placement::new(w, h, store.square);
        let at = placement.to_square((*x as f64 + 0.5, *y as f64 + 0.5)).ok_or_else(|| {
            let what = format!("--query {name}: outside of the square that the network sees of the {w} × {h} pixels");
            Error::input(what, "choose a pixel nearer to the middle")
        })?;
        let mut pixels = vec![0; store.size().pow(2) * 3];
        transform::image(&picture, store.square, &mut pixels);
        Ok(Asked { name, pixels, at, own })
    }

    /// The pixel (x, y) in the feature map.
    fn pixel(&self) -> (usize, usize) {
        (self.at.0 / STRIDE, self.at.1 / STRIDE)
    }
}

/// The nearest neighbors of each query, without itself.
fn search(
    dev: &mut dyn Engine,
    args: &NeighborsArgs,
    trained: &Trained,
    store: &ImageStore,
    asked: &[Asked],
) -> Result<Vec<Vec<Neighbor>>> {
    let recipe = &trained.recipe;
    let (images, top) = (store.len(), usize::from(args.top));
    let mut layout = Layout::new(dev.dtype());
    let loaded = Loaded::plan(&mut layout, recipe);
    let (net, size) = (&loaded.net, recipe.eval_size);
    let batching = Batching { images, batch: recipe.batch_cluster.min(32) };
    // One more is searched than asked for, because a query also finds itself.
    let (queries, nearest, every_pixel) = (asked.len(), top + 1, args.every_pixel);
    let wanted = Wanted { queries, nearest, every_pixel };
    let mut search = Search::plan(dev, &mut layout, net, recipe, batching, size, wanted)?;
    dev.reserve(&layout)?;
    trained.load(dev, &loaded)?;
    let mut queries = Vec::new();
    for asked in asked {
        queries.push(search.feature(dev, net, &asked.pixels, asked.pixel())?);
    }
    let phase = Progress::phase("search", images as u64);
    let mut found = search.run(dev, net, store, &queries, &mut |n| phase.tick(n))?;
    phase.finish();
    for (list, asked) in found.iter_mut().zip(asked) {
        let itself = |n: &Neighbor| {
            Some(n.image) == asked.own && (!every_pixel || (n.x, n.y) == asked.pixel())
        };
        list.retain(|neighbor| !itself(neighbor));
        list.truncate(top);
    }
    Ok(found)
}
