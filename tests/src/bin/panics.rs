//! `panics`: takes the terminal as `headroom top` does, and panics while it draws. What headroom itself would have to be
//! wrong for.

use anyhow::Result;
use headroom::top::screen::Screen;

#[expect(clippy::panic, reason = "that is what it is for")]
fn main() -> Result<()> {
    let mut screen = Screen::take()?;
    screen.draw(|_| panic!("nothing to draw"))?;
    Ok(())
}
