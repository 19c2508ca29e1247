//! The header is what cbindgen makes of the sources. `MCC_BLESS=1` writes it anew.

use std::path::Path;

#[test]
fn the_header_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let builder = cbindgen::Builder::new().with_config(config).with_src(root.join("src/lib.rs"));
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    let made = String::from_utf8(text).unwrap();
    let path = root.join("include/mcc.h");
    if std::env::var_os("MCC_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == made, "include/mcc.h is out of date: MCC_BLESS=1 cargo test -p mcc-capi --test header");
}
