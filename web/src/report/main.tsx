/* The page that keyhole bench writes with --report: results stand in the file, curves are drawn here. */
import { render } from 'preact';
import { embedded } from '../common/embedded';
import '../common/theme.css';
import '../common/parts.css';
import { Page } from './page';
import './report.css';
import { readReport } from './results';

const root = document.getElementById('page')!;
const report = readReport(embedded());
root.textContent = report
  ? ''
  : 'This page holds no results: keyhole bench attention --report writes one that does.';
if (report) render(<Page report={report} />, root);
