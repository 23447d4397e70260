//! The keys of the view, and what they wish for.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a storm kills unless a number was typed before.
pub const STORM: f64 = 0.1;
/// Longer numbers make no sense.
const NUMBER_MAX: u32 = 9_999;

/// What whoever sits at the terminal wishes for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wish {
    /// The run's early end, in order.
    End,
    /// That nobody connects any more, or that they go on.
    Pause,
    /// That this share is killed.
    Storm(f64),
    /// That the server drains, over this time.
    Drain(Option<Duration>),
}

/// The number that is being typed.
#[derive(Debug, Default)]
pub struct Keys {
    number: Option<u32>,
}

impl Keys {
    /// What has been typed of a number.
    pub fn number(&self) -> Option<u32> {
        self.number
    }

    /// A key was pressed.
    pub fn press(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.kind != KeyEventKind::Press {
            return None;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let number = self.number.take();
        match key.code {
            // The terminal sends no signals while every key is read as it is.
            KeyCode::Char('c') if control => Some(Wish::End),
            KeyCode::Char(_) if control => None,
            KeyCode::Char(letter) => self.letter(letter.to_ascii_lowercase(), number),
            _ => None,
        }
    }

    fn letter(&mut self, letter: char, number: Option<u32>) -> Option<Wish> {
        if let Some(digit) = letter.to_digit(10) {
            self.number = Some((number.unwrap_or(0) * 10 + digit).min(NUMBER_MAX));
            return None;
        }
        match letter {
            'q' => Some(Wish::End),
            'p' => Some(Wish::Pause),
            's' => match number.map_or(STORM, |percent| f64::from(percent) / 100.0) {
                share if share > 0.0 && share <= 1.0 => Some(Wish::Storm(share)),
                _ => None,
            },
            'd' => {
                let seconds = |seconds| Duration::from_secs(u64::from(seconds));
                Some(Wish::Drain(number.map(seconds)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(keys: &str) -> Vec<Wish> {
        let mut state = Keys::default();
        let events = keys.chars().map(|letter| KeyEvent::from(KeyCode::Char(letter)));
        events.filter_map(|key| state.press(key)).collect()
    }

    #[test]
    fn every_key_has_its_wish_and_others_have_none() {
        let all = [Wish::Pause, Wish::Storm(0.1), Wish::Drain(None), Wish::End];
        assert_eq!(wishes("psdq"), all);
        assert_eq!(wishes("PSDQ"), all);
        assert_eq!(wishes("x?-"), []);
    }

    #[test]
    fn a_number_before_a_key_is_its_measure_once() {
        assert_eq!(wishes("25ss"), [Wish::Storm(0.25), Wish::Storm(0.1)]);
        assert_eq!(wishes("30d"), [Wish::Drain(Some(Duration::from_secs(30)))]);
        assert_eq!(wishes("101s0s"), [], "more than all, and nobody");
        assert_eq!(wishes("9xs"), [Wish::Storm(0.1)], "another key takes a number back");
        assert_eq!(wishes("99999999999d"), [Wish::Drain(Some(Duration::from_secs(9_999)))]);
    }

    #[test]
    fn control_c_ends_the_run_as_a_signal_would() {
        let control = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
        assert_eq!(Keys::default().press(control('c')), Some(Wish::End));
        assert_eq!(Keys::default().press(control('s')), None);
    }
}
