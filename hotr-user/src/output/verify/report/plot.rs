//! How long each channel took to receive a file that was made: one point a sample, on a scale of powers of ten.

use std::fmt::Write as _;
use std::time::Duration;

use crate::output::diagnose::live::micros;
use crate::verify::Finding;
use crate::verify::evidence::Listener;

/// Powers of ten.
const SCALE: [&str; 8] = ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"];
/// How many of them are above the first.
const DECADES: f64 = 7.0;
const LEFT: f64 = 62.0;
const DECADE: f64 = 38.0;
const ROW: usize = 30;

/// What was measured of one channel.
pub(super) struct Delays {
    pub(super) listener: Listener,
    /// In ascending order; at least one.
    samples: Vec<Duration>,
}

impl Delays {
    /// Those of all channels that have any.
    pub(super) fn of(findings: &[Finding]) -> Vec<Self> {
        let all = || findings.iter().flat_map(|finding| &finding.evidence.delays);
        let of = |listener| {
            let own = all().filter(|(other, _)| *other == listener);
            let mut samples: Vec<Duration> = own.map(|(_, delay)| *delay).collect();
            samples.sort_unstable();
            Self { listener, samples }
        };
        Listener::ALL.into_iter().map(of).filter(|delays| !delays.samples.is_empty()).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.samples.len()
    }

    fn at(&self, place: usize) -> String {
        let micros_of = |delay: Duration| u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        micros(micros_of(self.samples[place.min(self.samples.len() - 1)]))
    }

    pub(super) fn median(&self) -> String {
        self.at(self.samples.len() / 2)
    }

    pub(super) fn longest(&self) -> String {
        self.at(usize::MAX)
    }
}

/// Where a delay is on the scale.
fn x(delay: Duration) -> f64 {
    let decades = (delay.as_secs_f64() * 1e6).max(1.0).log10().min(DECADES);
    LEFT + DECADE * decades
}

/// The picture.
pub(super) fn svg(html: &mut String, all: &[Delays]) {
    let bottom = all.len() * ROW + 4;
    let _ = write!(
        html,
        "<svg viewBox=\"0 0 340 {}\" role=img aria-label=\"how long each channel took\">",
        bottom + 18
    );
    for (decade, name) in (0_u32..).zip(SCALE) {
        let x = LEFT + DECADE * f64::from(decade);
        let _ = write!(html, "<line class=grid x1={x} y1=2 x2={x} y2={bottom} />");
        let _ = write!(html, "<text class=t x={x} y={} text-anchor=middle>{name}</text>", bottom + 13);
    }
    for (row, delays) in all.iter().enumerate() {
        let y = row * ROW + ROW / 2 + 2;
        let name = delays.listener.as_str();
        let _ = write!(html, "<text x={} y={} text-anchor=end>{name}</text>", LEFT - 8.0, y + 4);
        for sample in &delays.samples {
            let _ = write!(html, "<circle class=sample cx={:.1} cy={y} r=4 />", x(*sample));
        }
        let middle = x(delays.samples[delays.samples.len() / 2]);
        let _ =
            write!(html, "<line class=median x1={middle:.1} y1={} x2={middle:.1} y2={} />", y - 10, y + 10);
    }
    html.push_str("</svg>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_where_the_scale_has_it() {
        assert_eq!(x(Duration::from_nanos(10)).to_bits(), LEFT.to_bits());
        assert!((x(Duration::from_millis(1)) - (LEFT + 3.0 * DECADE)).abs() < 0.01);
        assert!(x(Duration::from_secs(1000)) <= LEFT + 7.0 * DECADE);
    }
}
