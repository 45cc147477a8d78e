//! What pages for a browser have in common: no script, nothing from elsewhere, light and dark, for a phone and for print.
//!
//! In: HTML of a page's own. Out: a document. Names in it are escaped twice ([`text`]): as for a terminal, so that nothing invisible
//! stays in them, and as HTML. The page forbids itself to load or to run anything.

pub(super) mod text;

/// Begins a document, up to its body. `style` is added to what all pages have.
pub(super) fn begin(title: &str, style: &str) -> String {
    let mut html = String::from(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>",
    );
    html.push_str(title);
    html.push_str("</title><style>");
    html.push_str(include_str!("page/style.css"));
    html.push_str(style);
    html.push_str("</style></head><body>");
    html
}

/// Ends a document, with a sentence about what made it.
pub(super) fn end(html: &mut String, made_by: &str) {
    html.push_str("<footer>");
    html.push_str(made_by);
    html.push_str("</footer></body></html>\n");
}
