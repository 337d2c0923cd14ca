//! Session timers, RFC 4028: whoever is the refresher sends UPDATE or re-INVITE at half the interval; the other side
//! ends the session when no refresh comes.

use std::time::{Duration, Instant};

use super::State;
use crate::endpoint::Endpoint;
use crate::endpoint::send::Answer;
use crate::event::{Config, DialogId, EndCause, Event};
use crate::header::{MinSe, Refresher, SessionExpires};
use crate::message::{Headers, Method, Response};

/// No session may be refreshed more often (RFC 4028 §4, §5), whatever the peer writes: 0 would end the call at once.
const SHORTEST_S: u32 = 90;
/// How long to wait when a refresh is due while an offer is pending, or was refused.
const POSTPONED: Duration = Duration::from_secs(5);

/// The running timer of one session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionTimer {
    pub(crate) interval: Duration,
    pub(crate) by_us: bool,
    /// `None` once this interval's refresh is out.
    refresh_at: Option<Instant>,
    /// Interval minus the smaller of 32 s and a third of it (RFC 4028 §10).
    end_at: Instant,
}

impl SessionTimer {
    fn new(now: Instant, seconds: u32, by_us: bool) -> Self {
        let interval = Duration::from_secs(seconds.max(SHORTEST_S).into());
        let margin = (interval / 3).min(Duration::from_secs(32));
        Self {
            interval,
            by_us,
            refresh_at: by_us.then(|| now + interval / 2),
            end_at: now + interval.saturating_sub(margin),
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.refresh_at.map_or(self.end_at, |at| at.min(self.end_at))
    }
}

/// Session-Expires of our 2xx.
#[derive(Debug, Clone)]
pub(crate) struct AnswerTimer {
    pub(crate) value: SessionExpires,
    /// The caller refreshes, so it must know (RFC 4028 §9).
    pub(crate) required: bool,
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn min_se(config: &Config) -> u32 {
    seconds(config.min_session_expires).max(90)
}

/// Session-Expires and Min-SE of a request: a running timer keeps its interval and refresher (RFC 4028 §7.4).
pub(crate) fn session_headers(config: &Config, running: Option<&SessionTimer>) -> Vec<(String, String)> {
    let value = match (running, config.session_expires) {
        (Some(timer), _) => {
            let refresher = Some(if timer.by_us { Refresher::Uac } else { Refresher::Uas });
            SessionExpires { interval: seconds(timer.interval), refresher }
        }
        (None, Some(wanted)) => SessionExpires { interval: seconds(wanted).max(min_se(config)), refresher: None },
        (None, None) => return Vec::new(),
    };
    let min_se = MinSe(min_se(config).min(value.interval));
    vec![("Session-Expires".to_owned(), value.to_string()), ("Min-SE".to_owned(), min_se.0.to_string())]
}

/// The Min-SE to answer with 422, if the interval asked for is too small (RFC 4028 §9).
pub(crate) fn min_se_fault(config: &Config, headers: &Headers) -> Option<MinSe> {
    let wanted = headers.parse_one::<SessionExpires>("Session-Expires").ok()?;
    let supports = headers.lists("Supported", "timer");
    (supports && wanted.interval < min_se(config)).then(|| MinSe(min_se(config)))
}

impl Endpoint {
    /// 422: the same request with the larger interval (RFC 4028 §7.3, §7.4). False if it cannot be.
    pub(crate) fn retry_with_min_se(&mut self, now: Instant, answer: Answer<'_>) -> bool {
        let Ok(MinSe(min_se)) = answer.response.headers.parse_one::<MinSe>("Min-SE") else { return false };
        self.send_again(now, answer.tx, |headers| {
            let known = headers.parse_one::<SessionExpires>("Session-Expires").ok();
            let refresher = known.as_ref().and_then(|known| known.refresher);
            let interval = known.map_or(min_se, |known| known.interval.max(min_se));
            headers.set("Session-Expires", SessionExpires { interval, refresher }.to_string());
            headers.set("Min-SE", min_se.to_string());
        })
    }

    /// After a 2xx to our INVITE, re-INVITE or UPDATE. Without Session-Expires there is no timer.
    pub(crate) fn start_timer_as_caller(&mut self, now: Instant, id: DialogId, response: &Response) {
        let value = response.headers.parse_one::<SessionExpires>("Session-Expires").ok();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.timer = value.map(|value| {
            let by_us = match value.refresher {
                Some(Refresher::Uas) => false,
                Some(Refresher::Uac) | None => true,
            };
            SessionTimer::new(now, value.interval, by_us)
        });
    }

    /// Before our 2xx: what Session-Expires it carries (RFC 4028 §9), and the timer that starts with it.
    pub(crate) fn answer_timer(&mut self, now: Instant, id: DialogId, headers: &Headers) -> Option<AnswerTimer> {
        let asked = headers.parse_one::<SessionExpires>("Session-Expires").ok();
        let supports = headers.lists("Supported", "timer");
        let own = self.config.session_expires.map(|wanted| seconds(wanted).max(min_se(&self.config)));
        let peer_min = headers.parse_one::<MinSe>("Min-SE").map_or(90, |MinSe(seconds)| seconds);
        let interval = match (&asked, own) {
            (Some(asked), Some(own)) => asked.interval.min(own).max(peer_min),
            (Some(asked), None) => asked.interval,
            (None, Some(own)) if supports => own.max(peer_min),
            (None, Some(_) | None) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.timer = None;
                }
                return None;
            }
        };
        // A caller that does not know the extension cannot refresh: then we do.
        let refresher = match asked.and_then(|asked| asked.refresher) {
            Some(chosen) if supports => chosen,
            None if supports => Refresher::Uac,
            Some(_) | None => Refresher::Uas,
        };
        let by_us = refresher == Refresher::Uas;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.timer = Some(SessionTimer::new(now, interval, by_us));
        }
        Some(AnswerTimer { value: SessionExpires { interval, refresher: Some(refresher) }, required: !by_us })
    }

    pub(crate) fn report_refresh(&mut self, id: DialogId, by_us: bool) {
        let Some(interval) = self.sessions.get(&id).and_then(|session| session.timer).map(|timer| timer.interval)
        else {
            return;
        };
        self.emit(Event::SessionRefreshed { dialog: id, by_us, interval });
    }

    /// Refreshes, or ends a session that nobody refreshed.
    pub(crate) fn run_session_timer(&mut self, now: Instant, id: DialogId) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.state == State::Confirmed) else {
            return;
        };
        let Some(timer) = &mut session.timer else { return };
        if now >= timer.end_at {
            self.end_with_bye(now, id, EndCause::SessionExpired);
            return;
        }
        if timer.refresh_at.is_none_or(|at| at > now) {
            return;
        }
        timer.refresh_at = None;
        // UPDATE without SDP changes nothing; a re-INVITE must repeat the SDP of the last one (RFC 4028 §7.4).
        let (method, sdp) =
            if session.peer.update { (Method::Update, None) } else { (Method::Invite, session.local_sdp.clone()) };
        if self.send_offer(now, id, method, sdp, true).is_err() {
            self.postpone_refresh(now, id);
        }
    }

    /// The refresh could not be sent, or was refused: again, while the interval lasts.
    pub(crate) fn postpone_refresh(&mut self, now: Instant, id: DialogId) {
        if let Some(timer) = self.sessions.get_mut(&id).and_then(|session| session.timer.as_mut()) {
            timer.refresh_at = Some(now + POSTPONED);
        }
    }
}

#[cfg(test)]
mod refresh_tests {
    use super::*;
    use crate::transaction::tests::epoch;

    #[test]
    fn an_interval_that_no_peer_may_ask_for_neither_ends_the_call_nor_floods_it() {
        let now = epoch();
        for seconds in [0, 1, 89] {
            let timer = SessionTimer::new(now, seconds, true);
            assert_eq!(timer.deadline(), now + Duration::from_secs(45), "Session-Expires: {seconds}");
        }
        assert!(SessionTimer::new(now, u32::MAX, false).deadline() > now);
    }
}
