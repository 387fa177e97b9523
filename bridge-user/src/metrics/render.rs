//! Families as text.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, prometheus_text, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};
use serde_json::json;

use super::families::{Families, Family, Kind, Value};

/// A format of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4, which node_exporter reads.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Families {
    /// As text.
    pub fn render(self, format: Format) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        let written = match format {
            Format::Prometheus => prometheus_text::encode(&mut text, &registry),
            Format::OpenMetrics => text::encode(&mut text, &registry),
        };
        written.expect("a string has room");
        text
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            family.encode(&mut encoder)?;
        }
        Ok(())
    }
}

impl Family {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Info => MetricType::Info,
        };
        let mut all = encoder.encode_descriptor(self.base, self.help, self.unit.as_ref(), kind)?;
        for (labels, value) in &self.samples {
            if self.kind == Kind::Info {
                all.encode_info(labels)?;
                continue;
            }
            let one = all.encode_family(labels)?;
            match (self.kind, *value) {
                (Kind::Counter, Value::Number(number)) => ConstCounter::new(number).encode(one)?,
                (Kind::Counter, Value::Seconds(seconds)) => ConstCounter::new(seconds).encode(one)?,
                (_, Value::Number(number)) => ConstGauge::new(number).encode(one)?,
                (_, Value::Seconds(seconds)) => ConstGauge::new(seconds).encode(one)?,
            }
        }
        Ok(())
    }
}

impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let samples: Vec<_> = self
            .samples
            .iter()
            .map(|(labels, value)| {
                let labels: serde_json::Map<_, _> = labels
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), json!(value)))
                    .collect();
                let value = match *value {
                    Value::Number(number) => json!(number),
                    Value::Seconds(seconds) => json!(seconds),
                };
                json!({ "labels": labels, "value": value })
            })
            .collect();
        let mut family = serializer.serialize_struct("Family", 4)?;
        family.serialize_field("name", &self.name())?;
        family.serialize_field(
            "type",
            match self.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Info => "info",
            },
        )?;
        family.serialize_field("help", self.help)?;
        family.serialize_field("samples", &samples)?;
        family.end()
    }
}
