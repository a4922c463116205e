//! Pages of HTML that need nothing else: style and pictures are inside, no script, no network.

pub mod run;

use image::RgbImage;
use image::imageops::{FilterType, resize};

use crate::report::pictures::png;

/// The style of all pages: light or dark as the reader's system is, for narrow windows, wide ones
/// and paper.
const STYLE: &str = include_str!("style.css");

/// A whole page around the HTML `body`.
pub fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n{body}\n</body>\n</html>\n"
    )
}

/// A text as HTML, in which nothing is a tag.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

/// A table. The cells are HTML; those after the first column are numbers, to the right.
pub fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head: String = header.iter().map(|h| format!("<th>{h}</th>")).collect();
    let row = |cells: Vec<String>| {
        let mut cells = cells.into_iter();
        let first = cells.next().unwrap_or_default();
        let rest: String = cells.map(|cell| format!("<td>{cell}</td>")).collect();
        format!("<tr><th scope=\"row\">{first}</th>{rest}</tr>")
    };
    let rows: String = rows.map(row).collect();
    format!(
        "<div class=\"wide\"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

/// Texts as the cells of a table's row.
pub fn cells(row: &[String]) -> Vec<String> {
    row.iter().map(|cell| escape(cell)).collect()
}

/// A part of a bar: its length, by the same unit as the whole's, its series and what it is.
pub type Part = (f64, usize, String);

/// One bar: parts of a whole that follow each other.
pub struct Bar {
    pub label: String,
    /// What stands behind the label.
    pub note: String,
    pub parts: Vec<Part>,
}

/// Bars below each other, as long as their parts' share of `whole`.
pub fn bars(bars: &[Bar], whole: f64) -> String {
    let part = |(length, series, title): &Part| {
        let (percent, title) = ((100.0 * length / whole).clamp(0.0, 100.0), escape(title));
        format!(r#"<i class="s{series}" style="width:{percent:.2}%" title="{title}"></i>"#)
    };
    let bar = |Bar { label, note, parts }: &Bar| {
        let (label, note, parts) =
            (escape(label), escape(note), parts.iter().map(part).collect::<String>());
        format!("<div>{label} <small>{note}</small></div><div class=\"strip\">{parts}</div>\n")
    };
    format!("<div class=\"bars\">{}</div>\n", bars.iter().map(bar).collect::<String>())
}

/// What the colours of series mean.
pub fn legend(names: &[(usize, &str)]) -> String {
    let item = |(series, name): &(usize, &str)| {
        format!(r#"<li><span class="swatch s{series}"></span>{}</li>"#, escape(name))
    };
    format!("<ul class=\"legend\">{}</ul>\n", names.iter().map(item).collect::<String>())
}

/// An `svg` element of a page as a file of its own, with the page's style and ground.
pub fn alone(svg: &str) -> String {
    let (open, inside) = svg.split_at(svg.find('>').map_or(0, |end| end + 1));
    let open = open.replace("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ");
    format!("{open}<style>{STYLE}svg{{background:var(--page)}}</style>{inside}\n")
}

/// A list of names and values, both text.
pub fn facts(facts: &[(String, String)]) -> String {
    let one = |(name, value): &(String, String)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value))
    };
    format!("<dl class=\"facts\">{}</dl>", facts.iter().map(one).collect::<String>())
}

/// A picture inside of the page, made smaller where it is wider than `most` pixels.
pub fn picture(picture: &RgbImage, alt: &str, most: u32) -> String {
    let (w, h) = picture.dimensions();
    let small;
    let shown = if w > most {
        let height = (u64::from(h) * u64::from(most) / u64::from(w)).max(1) as u32;
        small = resize(picture, most, height, FilterType::Triangle);
        &small
    } else {
        picture
    };
    let (w, h) = shown.dimensions();
    let data = png(shown).map(|bytes| base64(&bytes)).unwrap_or_default();
    let alt = escape(alt);
    format!(r#"<img alt="{alt}" width="{w}" height="{h}" src="data:image/png;base64,{data}">"#)
}

/// Bytes as base64 (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= three.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        // RFC 4648, section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xFB, 0xFF, 0xFE]), "+//+");
    }

    #[test]
    fn text_is_no_tag() {
        assert_eq!(escape("<a href='x'>&\""), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
        let page = page("<b>", "");
        assert!(page.contains("<title>&lt;b&gt;</title>"));
    }

    #[test]
    fn bars_are_as_long_as_their_parts() {
        let parts = vec![(1.0, 2, "a < b".into()), (3.0, 0, String::new())];
        let html = bars(&[Bar { label: "half".into(), note: "1 s".into(), parts }], 8.0);
        assert!(html.contains(r#"class="s2" style="width:12.50%" title="a &lt; b""#), "{html}");
        assert!(html.contains("width:37.50%") && html.contains("<small>1 s</small>"), "{html}");
        assert!(legend(&[(3, "<b>")]).contains(r#"swatch s3"></span>&lt;b&gt;"#));
    }

    #[test]
    fn an_svg_alone_has_its_style() {
        let svg = alone("<svg viewBox=\"0 0 1 1\"><text>a</text></svg>");
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</style><text>a</text></svg>\n"));
        assert!(svg.contains("prefers-color-scheme"));
    }

    #[test]
    fn wide_pictures_are_made_smaller() {
        let html = picture(&RgbImage::new(600, 300), "a \"b\"", 240);
        assert!(html.contains("width=\"240\" height=\"120\"") && html.contains("a &quot;b&quot;"));
        assert!(picture(&RgbImage::new(32, 32), "", 240).contains("width=\"32\""));
    }
}
