//! Which format a client wants.

use super::Format;

/// The format that an `Accept` header asks for (RFC 9110, 12.5.1): OpenMetrics where it is named and nothing that is
/// wanted more, else the one that everything reads.
pub(super) fn format(accept: Option<&str>) -> Format {
    let (mut open_metrics, mut prometheus) = (0.0_f32, 0.0_f32);
    for range in accept.unwrap_or_default().split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut weight, mut version) = (1.0_f32, None);
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("q" | "Q", value)) => weight = value.trim().parse().unwrap_or(0.0),
                Some((name, value)) if name.eq_ignore_ascii_case("version") => {
                    version = Some(value.trim().trim_matches('"'));
                }
                _ => {}
            }
        }
        match (&*media, version) {
            ("application/openmetrics-text", None | Some("1.0.0")) => open_metrics = open_metrics.max(weight),
            ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => {
                prometheus = prometheus.max(weight);
            }
            _ => {}
        }
    }
    if open_metrics > 0.0 && open_metrics >= prometheus {
        Format::OpenMetrics
    } else {
        Format::Prometheus
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_whoever_asks_for_it() {
        // Of Prometheus 2.42 and 3.4, and a browser.
        let old = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let new = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                   application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                   text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, wanted) in [
            (None, Format::Prometheus),
            (Some(""), Format::Prometheus),
            (Some(old), Format::OpenMetrics),
            (Some(new), Format::OpenMetrics),
            (Some(browser), Format::Prometheus),
            (Some("Application/OpenMetrics-Text"), Format::OpenMetrics),
            (
                Some("application/openmetrics-text; version=\"1.0.0\""),
                Format::OpenMetrics,
            ),
            (Some("application/openmetrics-text;q=0"), Format::Prometheus),
            (
                Some("application/openmetrics-text;version=2.0.0"),
                Format::Prometheus,
            ),
            (
                Some("text/plain, application/openmetrics-text;q=0.5"),
                Format::Prometheus,
            ),
            (
                Some("text/plain;version=0.0.4;q=0.5, application/openmetrics-text"),
                Format::OpenMetrics,
            ),
            (Some(";;,=;q=x,q"), Format::Prometheus),
        ] {
            assert_eq!(format(accept), wanted, "{accept:?}");
        }
    }
}
