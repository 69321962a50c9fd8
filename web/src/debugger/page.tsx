/* The debugger: grid, account, card, base beside edited, on one screen. */
import { useEffect } from 'preact/hooks';
import { DiffScreen } from './apart';
import { Card } from './card';
import { Compare } from './compare';
import { Footer } from './footer';
import { GridScreen } from './grid';
import { HeadsScreen } from './heads';
import { KeyList, pressed } from './keys';
import { NeuronsScreen } from './neurons';
import { PatchScreen } from './patching';
import { PromptBox } from './prompt';
import { Rail } from './rail';
import { SearchScreen } from './searching';
import type { Session } from './session';
import { useStore } from './store';
import { Shelf } from './shelf';
import { SteerScreen } from './steering';
import { Strip } from './strip';
import { TopBar } from './top';
import { WhyPanel } from './why';

const SCREENS = {
  grid: GridScreen,
  heads: HeadsScreen,
  neurons: NeuronsScreen,
  search: SearchScreen,
  patch: PatchScreen,
  steer: SteerScreen,
  diff: DiffScreen,
};

export function Page({ session }: { session: Session }) {
  const screen = useStore(session.store, (s) => s.view.screen);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => pressed(session, event);
    const onStep = () => session.restore(location.search + location.hash, false);
    addEventListener('keydown', onKey);
    addEventListener('popstate', onStep);
    void session.start();
    return () => {
      removeEventListener('keydown', onKey);
      removeEventListener('popstate', onStep);
    };
  }, []);
  const Screen = SCREENS[screen];
  return (
    <div class="app">
      <TopBar session={session} />
      <Rail session={session} />
      <div class="ask">
        <PromptBox session={session} />
        <Strip session={session} />
      </div>
      <div class="centre">
        <Screen session={session} />
        <Compare session={session} />
      </div>
      <div class="right">
        <WhyPanel session={session} />
        <Card session={session} />
      </div>
      <Footer session={session} />
      <KeyList session={session} />
      <Shelf session={session} />
    </div>
  );
}
