/* The page of keyhole train and keyhole train report: runs stand in the file, curves are drawn here. */
import { render } from 'preact';
import { embedded } from '../common/embedded';
import '../common/theme.css';
import '../common/parts.css';
import { Page } from './page';
import { readReport } from './runs';
import './training.css';

const root = document.getElementById('page')!;
const report = readReport(embedded());
root.textContent = report
  ? ''
  : 'This page holds no runs: keyhole train report RUN -o FILE.html writes one that does.';
if (report) render(<Page report={report} />, root);
