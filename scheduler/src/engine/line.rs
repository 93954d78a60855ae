//! core: a line through the last points, the older the fainter: exponentially weighted least squares, updated in place
//! (West, "Updating mean and variance estimates", CACM 1979, with the old moments faded at each step). What counts is the
//! error relative to the height, since the points differ by orders of magnitude.

/// Points that count, about: what changed is believed after as many.
const MEMORY: f64 = 20.0;

/// Without this spread of the points (relative to their mean), a slope would be noise, and the last one known is kept.
const SPREAD_MIN: f64 = 0.2;

/// What is left of a told height at each point that does not confirm it: so that a wrong one does not stay.
const DOUBT: f64 = 0.995;

/// A point so many times above the line counts as being there: one stall is no trend.
const OUTLIER: f64 = 3.0;

/// Before so many points nothing is taken for an outlier, nor the line for known.
const SETTLED: u32 = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    points: u32,
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    /// Its height at zero and its slope when they could last be told.
    told: Option<(f64, f64)>,
    /// What is left of that height since.
    left: f64,
}

impl Line {
    /// Adds a point of positive coordinates.
    pub(super) fn add(&mut self, x: f64, y: f64) {
        let known = if self.points < SETTLED { y } else { self.at(x).max(self.y / OUTLIER) };
        let (y, weight) = (y.min(known * OUTLIER), known.powi(-2));
        let fade = 1.0 - 1.0 / MEMORY;
        self.points = self.points.saturating_add(1);
        self.weight = self.weight * fade + weight;
        let (dx, dy) = (x - self.x, y - self.y);
        self.x += dx * weight / self.weight;
        self.y += dy * weight / self.weight;
        self.xx = self.xx * fade + weight * dx * (x - self.x);
        self.xy = self.xy * fade + weight * dx * (y - self.y);
        if let Some(slope) = self.slope().filter(|slope| self.points >= SETTLED && *slope > 0.0) {
            self.told = Some(((self.y - slope * self.x).max(0.0), slope));
            self.left = 1.0;
        } else {
            self.left *= DOUBT;
        }
    }

    /// Its height at zero and its slope, both positive: the height doubted the more, the longer it could not be told.
    pub(super) fn known(&self) -> Option<(f64, f64)> {
        self.told.map(|(height, slope)| (height * self.left, slope))
    }

    /// The height at zero when it could last be told, for whom too much does less harm than too little.
    pub(super) fn height(&self) -> Option<f64> {
        self.told.map(|(height, _)| height)
    }

    fn slope(&self) -> Option<f64> {
        let spread = (self.xx / self.weight).sqrt();
        (spread > self.x * SPREAD_MIN).then(|| self.xy / self.xx)
    }

    /// Its height there.
    pub(super) fn at(&self, x: f64) -> f64 {
        self.y + self.slope().unwrap_or(0.0) * (x - self.x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(points: impl IntoIterator<Item = (f64, f64)>) -> Line {
        let mut line = Line::default();
        points.into_iter().for_each(|(x, y)| line.add(x, y));
        line
    }

    fn is_about(line: &Line, (height, slope): (f64, f64)) -> bool {
        line.known().is_some_and(|found| (found.0 - height).abs() < height * 0.05 && (found.1 - slope).abs() < slope * 0.05)
    }

    #[test]
    fn points_on_a_line_give_it_back_whatever_their_size() {
        let line = through((0..30).map(|n| f64::from(1 << (n % 12))).map(|x| (x, 5.0 + 2.0 * x)));
        assert!(is_about(&line, (5.0, 2.0)), "{line:?}");
    }

    #[test]
    fn few_points_or_points_in_one_place_give_none() {
        assert_eq!(through((1..SETTLED).map(|x| (f64::from(x), 1.0))).known(), None);
        assert_eq!(through((0..30).map(|n| (10.0 + f64::from(n % 3) / 10.0, 5.0))).known(), None);
    }

    #[test]
    fn what_changed_is_believed_soon() {
        let sizes = || (0..200).map(|n| f64::from(n % 10 + 1));
        let line = through(sizes().map(|x| (x, 10.0)).chain(sizes().map(|x| (x, 20.0 + 3.0 * x))));
        assert!(is_about(&line, (20.0, 3.0)), "{line:?}");
    }

    #[test]
    fn a_height_is_doubted_when_it_can_no_longer_be_told() {
        let line = through((0..30).map(|n| f64::from(n % 10 + 1)).chain([10.0; 200]).map(|x| (x, 5.0 + 2.0 * x)));
        assert!(line.known().is_some_and(|(height, _)| height < 3.0), "{line:?}");
        assert!(line.height().is_some_and(|height| (4.9..5.1).contains(&height)), "{line:?}");
    }

    #[test]
    fn one_stall_is_no_trend() {
        let sizes = || (0..40).map(|n| f64::from(n % 10 + 1));
        let line = through(sizes().map(|x| (x, 20.0 + 3.0 * x)).chain([(5.0, 1e6)]));
        let (height, slope) = line.known().unwrap();
        assert!(height + 5.0 * slope < 45.0, "{line:?}");
    }
}
