/* Value vectors in groups that point the same way, and who is in a group. */
import { useState } from 'preact/hooks';
import type { Cluster, ClustersFrame } from './contract';
import { visible } from './names';
import { asking } from './replay';
import type { Session } from './session';
import { partOfView, type Clustered } from './state';
import { useStore } from './store';

const EMPTY: Clustered = { round: null, done: null };

const grown = (data: Clustered, frame: ClustersFrame): Clustered =>
  frame.type === 'round' ? { ...data, round: frame } : { ...data, done: frame };

async function runClusters(session: Session, groups: number): Promise<void> {
  session.show({ groups });
  const body = { clusters: groups, top_n: 20, members: 100 };
  await session.gather('clustered', 'v1/clusters', body, EMPTY, grown);
}

export function ClustersForm({ session }: { session: Session }) {
  const groups = useStore(session.store, (s) => s.view.groups);
  const busy = useStore(session.store, (s) => s.clustered.busy);
  return (
    <form
      class="pair"
      onSubmit={(event) => {
        event.preventDefault();
        const given = Number(new FormData(event.currentTarget).get('groups'));
        void runClusters(session, Math.max(1, Math.floor(given) || 1));
      }}
    >
      <label>
        groups
        <input
          name="groups"
          type="number"
          min={1}
          max={4096}
          defaultValue={String(groups)}
          {...asking('1 to 4,096 clusters of all value vectors')}
        />
      </label>
      <button type="submit" class="run" aria-busy={busy} {...asking()}>
        Group
      </button>
      {busy && (
        <button type="button" onClick={() => session.end('clustered')}>
          Stop
        </button>
      )}
    </form>
  );
}

const said = (cluster: Cluster): string => cluster.top.map((t) => visible(t.text)).join(' ');

function Groups({
  clusters,
  chosen,
  choose,
}: {
  clusters: Cluster[];
  chosen: number;
  choose: (index: number) => void;
}) {
  return (
    <div class="map">
      <h3>groups, the closest first</h3>
      <div class="matrix-box" tabIndex={0} role="region" aria-label="groups">
        <ol class="hits">
          {clusters.map((cluster, i) => (
            <li key={i}>
              <button
                type="button"
                aria-pressed={i === chosen}
                title={`${cluster.size} neurons, mean cosine ${cluster.cosine.toFixed(3)}: ${said(cluster)}`}
                onClick={() => choose(i)}
              >
                <span class="number">{cluster.size.toLocaleString('en')} neurons</span>
                <span class="number">{cluster.cosine.toFixed(3)}</span>
                <span class="measured">
                  <span>
                    <i class="length" style={{ width: `${100 * Math.max(0, cluster.cosine)}%` }} />
                  </span>
                </span>
                <span class="cut">{said(cluster)}</span>
              </button>
            </li>
          ))}
        </ol>
      </div>
    </div>
  );
}

function Members({ session, cluster }: { session: Session; cluster: Cluster }) {
  const open = useStore(session.store, partOfView);
  return (
    <div class="map">
      <h3>nearest to the centre</h3>
      <p class="centre-tokens">
        {said(cluster)}{' '}
        <span class="quiet">
          against {cluster.bottom.slice(0, 6).map((t) => visible(t.text)).join(' ')}
        </span>
      </p>
      <div class="matrix-box" tabIndex={0} role="region" aria-label="members">
        <ol class="hits">
          {cluster.members.map(({ part, cosine }) => (
            <li key={part}>
              <button
                type="button"
                aria-pressed={part === open}
                disabled={!session.opens(part)}
                onClick={() => session.open(part)}
              >
                <b>{part}</b>
                <span class="number">{cosine.toFixed(3)}</span>
                <span class="measured wide">
                  <span>
                    <i class="length" style={{ width: `${100 * Math.max(0, cosine)}%` }} />
                  </span>
                </span>
              </button>
            </li>
          ))}
        </ol>
      </div>
    </div>
  );
}

export function Clusters({ session }: { session: Session }) {
  const { data, busy, error } = useStore(session.store, (s) => s.clustered);
  const [chosen, choose] = useState(0);
  const { round = null, done = null } = data ?? {};
  const clusters = [...(done?.clusters ?? [])]
    .filter(({ size }) => size > 1)
    .sort((a, b) => b.cosine - a.cosine);
  const shown = clusters[Math.min(chosen, clusters.length - 1)];
  return (
    <>
      {error && <p class="refused">{error}</p>}
      <div class="maps">
        <Groups {...{ clusters, chosen, choose }} />
        {shown && <Members session={session} cluster={shown} />}
      </div>
      <p class="told quiet" role="status">
        {done
          ? `${done.neurons.toLocaleString('en')} value vectors, mean cosine with their centres ${done.cosine.toFixed(3)} after ${done.rounds} rounds${done.settled ? ', settled' : ''}.`
          : busy && round
            ? `Round ${round.round}: ${round.moved.toLocaleString('en')} moved, mean cosine ${round.cosine.toFixed(3)}.`
            : 'Spherical k-means over all value vectors: twenty rounds at most.'}
      </p>
    </>
  );
}
