/* Where words go: data to standard output, everything else to standard error; and the signals that
 * end a program early.
 *
 * A closed pipe is not an error: whoever reads `keyhole run ... | head` has what he wanted. SIGPIPE
 * is ignored; the first write that finds nobody remembers it, later writes do nothing, the token
 * callback sees cli_out_closed() and ends the generation, and the program leaves with 0 and without
 * a word. Any other failed write (a full disk) is an error.
 *
 * Ctrl-C: where a session is at work, the first one asks it to stop, and the verb ends as if the
 * answer were complete, with exit code 130; a download that is asked to stop says what it keeps. The
 * second one, or the first where nothing could be stopped half-way, leaves at once; temporary files are never left under a final name, so there is
 * nothing to tidy. The handler is installed without SA_RESTART, so that a read of the terminal
 * returns.
 *
 * Progress is one line that is drawn over itself at most ten times a second, first after half a
 * second: short work shows nothing. It is plain text; NO_COLOR has nothing to switch off. */
#include "cli/cli.h"

#include "base/fail.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

int cli_quiet;

static int closed, broken; /* nobody reads; errno of another failure */

static void check_write(int failed)
{
    if (!failed || closed || broken) return;
    if (errno == EPIPE)
        closed = 1;
    else
        broken = errno ? errno : EIO;
}

void cli_out(const char *format, ...)
{
    if (closed || broken) return;
    cli_progress_end();
    va_list args;
    va_start(args, format);
    errno = 0;
    check_write(vprintf(format, args) < 0);
    va_end(args);
}

void cli_out_bytes(const char *bytes, size_t n)
{
    if (closed || broken || n == 0) return;
    cli_progress_end();
    errno = 0;
    check_write(fwrite(bytes, 1, n, stdout) != n);
}

int cli_out_closed(void)
{
    return closed;
}

kh_status cli_out_flush(void)
{
    errno = 0;
    check_write(fflush(stdout) != 0);
    if (broken) KH_FAIL(KH_ERR_IO, "standard output: %s", strerror(broken));
    return KH_OK;
}

kh_status cli_row_done(void)
{
    KH_TRY(cli_out_flush());
    if (cli_out_closed()) KH_FAIL(KH_ERR_STOPPED, "stopped");
    return KH_OK;
}

static void say(const char *head, const char *format, va_list args)
{
    char line[8192];
    int n = vsnprintf(line, sizeof line, format, args);
    if (n < 0 || closed) return;
    cli_progress_end();
    fflush(stdout);
    fprintf(stderr, "%s%s\n", head, line);
}

void cli_say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("", format, args);
    va_end(args);
}

void cli_note(const char *format, ...)
{
    if (cli_quiet) return;
    va_list args;
    va_start(args, format);
    say("keyhole: note: ", format, args);
    va_end(args);
}

void cli_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("keyhole: ", format, args);
    va_end(args);
}

size_t cli_width(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col < 120 ? size.ws_col : 120;
    return 80;
}

const char *cli_bytes(char *out, size_t size, uint64_t bytes)
{
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    int unit = 0;
    while (value >= 999.95 && unit < 4) {
        value /= 1000;
        unit++;
    }
    snprintf(out, size, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}

double cli_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- progress ---- */

static struct {
    char stage[96];
    double started, drawn;
    uint64_t first; /* `done` when the stage began */
    int visible;
} bar;

static void duration(char *out, size_t size, double seconds)
{
    if (seconds < 100)
        snprintf(out, size, "%.0f s", seconds);
    else
        snprintf(out, size, "%.0f min %02.0f s", floor(seconds / 60), fmod(floor(seconds), 60));
}

/* "120/800", or "1.2 MB of 8.0 MB" */
static void amount(char *out, size_t size, uint64_t done, uint64_t all, int bytes)
{
    char a[32], b[32];
    if (bytes)
        snprintf(out, size, "%s of %s", cli_bytes(a, sizeof a, done), cli_bytes(b, sizeof b, all));
    else
        snprintf(out, size, "%llu/%llu", (unsigned long long)done, (unsigned long long)all);
}

static void speed(char *out, size_t size, double rate, int bytes)
{
    char text[32];
    if (bytes)
        snprintf(out, size, "%s/s", cli_bytes(text, sizeof text, (uint64_t)rate));
    else
        snprintf(out, size, rate < 10 ? "%.1f/s" : "%.0f/s", rate);
}

static void draw(uint64_t done, uint64_t all, double elapsed, int bytes)
{
    enum { CELLS = 24, FEWEST = 4 };
    char cells[CELLS + 1], rest[192], left[48] = "", part[80], fast[48];
    double moved = (double)(done - bar.first), rate = elapsed > 0 ? moved / elapsed : 0;
    if (rate > 0 && done < all) duration(left, sizeof left, (double)(all - done) / rate);
    amount(part, sizeof part, done, all, bytes);
    speed(fast, sizeof fast, rate, bytes);
    snprintf(rest, sizeof rest, "%s%s%s%s%s%s", part, rate > 0 ? "  " : "", rate > 0 ? fast : "",
             *left ? ", " : "", left, *left ? " left" : "");
    struct winsize size;
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
    int room = columns - 3 - (int)(strlen(bar.stage) + strlen(rest));
    size_t most = room > CELLS ? CELLS : room < FEWEST ? FEWEST : (size_t)room;
    size_t full = all ? (size_t)((double)(done < all ? done : all) * (double)most / (double)all)
                      : 0;
    memset(cells, '.', most);
    memset(cells, '#', full);
    cells[most] = 0;
    char line[sizeof bar.stage + sizeof cells + sizeof rest + 4];
    snprintf(line, sizeof line, "%s %s %s", bar.stage, cells, rest);
    fprintf(stderr, "\r%.*s\033[K", columns - 1, line);
    fflush(stderr);
    bar.visible = 1;
}

static void progress(const char *stage, uint64_t done, uint64_t all, int bytes)
{
    static int terminal = -1;
    if (terminal < 0) terminal = isatty(STDERR_FILENO);
    if (cli_quiet || !terminal) return;
    double now = cli_seconds();
    if (strncmp(stage, bar.stage, sizeof bar.stage - 1) != 0 || done < bar.first) {
        if (bar.stage[0] == 0) bar.drawn = now + 0.4;
        snprintf(bar.stage, sizeof bar.stage, "%s", stage);
        bar.started = now;
        bar.first = done;
    }
    if (now - bar.drawn < 0.1) return;
    bar.drawn = now;
    draw(done, all, now - bar.started, bytes);
}

void cli_progress(void *context, const char *stage, size_t done, size_t all)
{
    (void)context;
    progress(stage, done, all, 0);
}

void cli_progress_bytes(const char *stage, uint64_t done, uint64_t all)
{
    progress(stage, done, all, 1);
}

void cli_line(const char *text)
{
    struct winsize size;
    if (cli_quiet || cli_seconds() - bar.drawn < 0.1) return;
    bar.drawn = cli_seconds();
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
    fprintf(stderr, "\r%.*s\033[K", columns - 1, text);
    fflush(stderr);
    bar.visible = 1;
}

void cli_progress_end(void)
{
    if (bar.visible) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    bar.visible = 0;
    bar.stage[0] = 0;
}

/* ---- signals ---- */

static kh_session *_Atomic running;
static kh_trainer *_Atomic evaluating;
static kh_inspector *_Atomic looking;
static volatile sig_atomic_t interrupts, awaited;

static void on_interrupt(int number)
{
    (void)number;
    kh_session *session = atomic_load(&running);
    kh_trainer *trainer = atomic_load(&evaluating);
    kh_inspector *inspector = atomic_load(&looking);
    if ((!session && !inspector && !awaited) || ++interrupts > 1) {
        if (bar.visible && write(STDERR_FILENO, "\r\033[K", 4) < 0) _exit(130);
        _exit(130);
    }
    if (session) kh_session_stop(session);
    if (trainer) kh_trainer_stop(trainer);
    if (inspector) kh_inspector_stop(inspector);
}

void cli_signals(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

void cli_signals_session(kh_session *session)
{
    atomic_store(&running, session);
}

void cli_signals_trainer(kh_trainer *trainer)
{
    atomic_store(&evaluating, trainer);
}

void cli_signals_inspector(kh_inspector *inspector)
{
    atomic_store(&looking, inspector);
}

void cli_signals_await(int on)
{
    awaited = on;
}

int cli_interrupted(void)
{
    return interrupts > 0;
}

void cli_signals_clear(void)
{
    interrupts = 0;
}
