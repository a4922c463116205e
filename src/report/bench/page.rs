//! Pages that are one file: everything is in it, and it looks alike years later. Light and dark as
//! the reader's system is, from 400 pixels up, and on paper.

use std::fmt::Write;

/// A page that grows section by section.
pub struct Page {
    html: String,
}

impl Page {
    /// Begins a page with a title, and lines of text below it.
    pub fn new(title: &str, lines: &[String]) -> Self {
        let title = escape(title);
        let mut html = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <link rel=\"icon\" href=\"data:,\">\n\
             <title>{title}</title>\n<style>{STYLE}</style></head>\n<body><main>\n<h1>{title}</h1>\n"
        );
        lines.iter().for_each(|line| html += &format!("<p>{}</p>\n", escape(line)));
        Page { html }
    }

    /// Adds a section; `body` is HTML.
    pub fn section(&mut self, heading: &str, body: &str) {
        self.html += &format!("<section><h2>{}</h2>\n{body}</section>\n", escape(heading));
    }

    /// The page, complete.
    pub fn finish(self) -> String {
        self.html + "</main></body></html>\n"
    }
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c => out.push(c),
        }
    }
    out
}

/// A paragraph.
pub fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// A table: the first column to the left, the others to the right. It scrolls where it is too wide.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = "<div class=\"wide\"><table><thead><tr>".to_string();
    header.iter().for_each(|title| html += &format!("<th>{}</th>", escape(title)));
    html += "</tr></thead><tbody>\n";
    for row in rows {
        html += "<tr>";
        row.iter().for_each(|cell| html += &format!("<td>{}</td>", escape(cell)));
        html += "</tr>\n";
    }
    html + "</tbody></table></div>\n"
}

/// One bar: parts of a whole that follow each other, each with its series and what it is.
pub struct Bar {
    pub label: String,
    /// What stands behind the label.
    pub note: String,
    /// Lengths by the same unit as `whole`.
    pub parts: Vec<(f64, usize, String)>,
}

/// Bars below each other, as long as their sums over `whole`.
pub fn bars(bars: &[Bar], whole: f64) -> String {
    let mut html = "<div class=\"bars\">\n".to_string();
    for Bar { label, note, parts } in bars {
        let (label, note) = (escape(label), escape(note));
        let _ = write!(
            html,
            "<div class=\"label\">{label} <span>{note}</span></div><div class=\"bar\">"
        );
        for (length, series, title) in parts {
            let percent = (100.0 * length / whole).clamp(0.0, 100.0);
            let title = escape(title);
            let _ = write!(
                html,
                "<i class=\"f{series}\" style=\"width:{percent:.2}%\" title=\"{title}\"></i>"
            );
        }
        html += "</div>\n";
    }
    html + "</div>\n"
}

/// What the colours of series mean.
pub fn legend(names: &[(usize, &str)]) -> String {
    let item = |(series, name): &(usize, &str)| {
        format!("<span><i class=\"f{series}\"></i> {}</span>", escape(name))
    };
    let items: Vec<String> = names.iter().map(item).collect();
    format!("<p class=\"legend\">{}</p>\n", items.join(" "))
}

/// An `svg` element as a file of its own, with a background and the colours of a page.
pub fn picture(svg: &str) -> String {
    let end = svg.find('>').map_or(0, |end| end + 1);
    let (open, inside) = svg.split_at(end);
    let open = open.replace("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ");
    format!("{open}<style>{STYLE}svg{{background:var(--back)}}</style>{inside}")
}

/// Colours are Okabe and Ito's, for colour-blind readers. `f0` to `f6` fill, `l0` to `l6` draw.
const STYLE: &str = "
:root{color-scheme:light dark;--fore:#1b1b1b;--soft:#5c5c5c;--back:#fff;--line:#d4d4d4;--band:#f4f4f4}
@media(prefers-color-scheme:dark){:root{--fore:#e8e8e8;--soft:#a8a8a8;--back:#161616;--line:#3c3c3c;--band:#222}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--fore);font:15px/1.45 system-ui,sans-serif}
main{max-width:1100px;margin:0 auto;padding:12px 16px 48px}
h1{font-size:1.5em;margin:.4em 0}h2{font-size:1.15em;margin:1.8em 0 .5em;border-bottom:1px solid var(--line)}
p{margin:.35em 0;overflow-wrap:anywhere}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92em}
th,td{padding:2px 10px 2px 0;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}
th{color:var(--soft);font-weight:600}
tbody tr:hover{background:var(--band)}
svg{display:block;width:100%;max-width:860px;height:auto}
svg text{fill:var(--fore);font:12px system-ui,sans-serif}
svg .soft{fill:var(--soft)}svg .grid{stroke:var(--line);stroke-width:1;fill:none}
svg .frame{stroke:var(--soft);stroke-width:1;fill:none}svg .line{fill:none;stroke-width:2}
.bars .label{margin-top:6px;overflow-wrap:anywhere}.bars .label span{color:var(--soft);font-size:.9em}
.bar{display:flex;height:14px;background:var(--band)}.bar i{height:100%;min-width:1px}
.legend span{margin-right:1.2em;white-space:nowrap}.legend i{display:inline-block;width:12px;height:12px}
.f0{fill:#0072b2;background:#0072b2}.l0{stroke:#0072b2}.f1{fill:#e69f00;background:#e69f00}.l1{stroke:#e69f00}
.f2{fill:#009e73;background:#009e73}.l2{stroke:#009e73}.f3{fill:#d55e00;background:#d55e00}.l3{stroke:#d55e00}
.f4{fill:#56b4e9;background:#56b4e9}.l4{stroke:#56b4e9}.f5{fill:#cc79a7;background:#cc79a7}.l5{stroke:#cc79a7}
.f6{fill:#999;background:#999}.l6{stroke:#999}
@media print{:root{--fore:#000;--soft:#444;--back:#fff;--line:#bbb;--band:#eee}*{print-color-adjust:exact}
section{break-inside:avoid-page}main{max-width:none}.wide{overflow:visible}}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_whole_and_holds_what_it_is_given() {
        let mut page = Page::new("a < b", &["one & two".into()]);
        page.section("rows", &table(&["x", "y"], &[vec!["<1>".into(), "2".into()]]));
        let half =
            Bar { label: "half".into(), note: "1".into(), parts: vec![(1.0, 2, "it".into())] };
        page.section("bars", &(bars(&[half], 2.0) + &legend(&[(2, "green")])));
        let html = page.finish();
        for part in [
            "<title>a &lt; b</title>",
            "<p>one &amp; two</p>",
            "<td>&lt;1&gt;</td><td>2</td>",
            "class=\"f2\" style=\"width:50.00%\" title=\"it\"",
            "prefers-color-scheme",
            "@media print",
            "</html>",
        ] {
            assert!(html.contains(part), "no {part} in {html}");
        }
        assert!(!html.contains("http"), "nothing comes from elsewhere");
        let alone = picture("<svg viewBox=\"0 0 1 1\"><text>a</text></svg>");
        assert!(
            alone.starts_with("<svg xmlns=") && alone.ends_with("</style><text>a</text></svg>")
        );
    }
}
