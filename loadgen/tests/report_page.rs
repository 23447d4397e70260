//! `--html`: a page that is whole, and the series that it is drawn from.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may as well panic")]

mod generator;
mod server;

use std::fs;

use generator::{finish, start, turn};

/// Every element that is opened is closed, in order.
fn expect_balanced(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in page.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes another");
        } else if !tag.ends_with('/') && !tag.starts_with('!') && name != "meta" {
            open.push(name);
        }
    }
    assert_eq!(open, [""; 0], "left open");
}

#[test]
fn the_page_tells_what_the_report_tells() {
    if server::is_missing() {
        return;
    }
    let _turn = turn();
    let file = std::env::temp_dir().join(format!("loadgen-page-{}.html", std::process::id()));
    let flags = format!(
        "-c 400 --connect-rate 1k -i 300ms --idle-timeout 1s --silent 5% -d 3s --at 1s:storm:10% \
         --slo rtt.p50<1us --html {}",
        file.display()
    );
    let outcome = finish(start(&flags));
    let page = fs::read_to_string(&file);
    let _ = fs::remove_file(&file);
    let page = page.unwrap_or_else(|error| panic!("{error}: {}", outcome.stderr));
    assert_eq!(outcome.code, Some(99), "no round trip takes less than 1 us: {}", outcome.stderr);
    assert_eq!(outcome.number("connections.opened"), 400.0);
    expect_balanced(&page);
    for expected in [
        ">failed</span>400 of 400 connections",
        "SLO: rtt.p50&lt;1us",
        "20 of 20",
        "storm at 1.0 s",
        "--slo &#39;rtt.p50&lt;1us&#39;",
        "prefers-color-scheme: dark",
    ] {
        assert!(page.contains(expected), "{expected} in {page}");
    }
    assert_eq!(page.matches("<svg").count(), 7);
    assert!(page.matches("<polyline").count() >= 14);
    for forbidden in ["<script", "http:", "https:", "src=", "url(", "@import"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }

    let series = outcome.report["series"].as_object().unwrap();
    let looks = series["at_s"].as_array().unwrap().len();
    assert!((5..=240).contains(&looks), "{looks}");
    for (name, column) in series.iter().filter(|(name, _)| *name != "phases") {
        let length = column.as_array().map_or(looks, Vec::len);
        assert_eq!(length, looks, "{name}");
    }
    let most = |name: &str| {
        let values = series[name].as_array().unwrap().iter();
        values.filter_map(serde_json::Value::as_f64).fold(0.0, f64::max)
    };
    assert!((most("open") - 400.0).abs() < 0.5, "{}", most("open"));
    assert!((most("expired") - 20.0).abs() < 0.5, "{}", most("expired"));
    assert!(most("falsely_closed") < 0.5);
    assert!(most("acked_per_s") > 300.0 && most("rtt_max_us") > 0.0);
    assert!(most("server_rss_bytes") > 0.0 && most("server_cpu_cores") > 0.0);
}
