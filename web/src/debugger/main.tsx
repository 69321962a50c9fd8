/* The debugger's page, as keyhole serve gives it at /. */
import { render } from 'preact';
import '../common/theme.css';
import './debugger.css';
import './ask.css';
import './cards.css';
import './panels.css';
import './views.css';
import './shelf.css';
import { Page } from './page';
import { Session } from './session';

const root = document.getElementById('page')!;
root.textContent = '';
render(<Page session={new Session()} />, root);
