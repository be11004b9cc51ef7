/** The page: the guest's requests, the I/O address space, walks and tables, side by side for the formats that are chosen. */
/// <reference lib="dom" />
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { PAGE_SIZE, READ, WRITE } from "../../../pagetable/mod.ts";
import { addressText } from "../../address.ts";
import { DeviceView } from "./device_view.tsx";
import { addressOf, Choice, textOf } from "./inputs.tsx";
import { MapView, SPACE_TEXT } from "./map_view.tsx";
import { ENDPOINTS, type Playground, RESERVED } from "./playground.ts";
import { RequestForm, RequestLog } from "./request_form.tsx";
import { TreeView } from "./tree_view.tsx";
import { type Access, WalkView } from "./walk_view.tsx";

/** The page. `api` is where the API of a running device is, empty if there is none. */
export function App(
  { playground, api, start }: {
    readonly playground: Playground;
    readonly api: string;
    /** The page that is walked first. */
    readonly start: number;
  },
): VNode {
  // The model changes in place: a number that counts changes draws the page anew.
  const [, setChanges] = useState(0);
  const changed = () => setChanges((count) => count + 1);
  const [access, setAccess] = useState<Access>({ page: start, offset: 0, permission: READ });
  const [shown, setShown] = useState<readonly number[]>(ENDPOINTS.slice(0, 3).map(({ id }) => id));
  const [chosen, setChosen] = useState(1);
  const { domains } = playground;
  const domain = domains.includes(chosen) ? chosen : domains[0];
  const mappings = domain === undefined ? [] : playground.mappings(domain);
  const endpoints = ENDPOINTS.filter(({ id }) => shown.includes(id));
  const walkPage = (page: number) => setAccess({ ...access, page, offset: 0 });
  const { flipped } = playground;
  return (
    <main>
      <header>
        <h1>viommu</h1>
        <p>
          A virtio-iommu device in this page: what the guest's requests become in the tables that
          IOMMUs read, and what hardware says of an access.
        </p>
        <Formats shown={shown} onChange={setShown} />
      </header>
      {api !== "" && <DeviceView api={api} />}
      <section aria-labelledby="requests-heading">
        <h2 id="requests-heading">Requests of the guest</h2>
        <RequestForm playground={playground} onSent={changed} />
        <RequestLog lines={playground.log} />
      </section>
      <section aria-labelledby="space-heading">
        <h2 id="space-heading">
          I/O address space <small>{SPACE_TEXT}</small>
        </h2>
        {domain === undefined ? <p>There is no domain: attach an endpoint.</p> : (
          <p class="tools">
            <Choice
              name="shown-domain"
              label="domain"
              options={domains.map((id) => [`${id}`, `${id}`])}
              value={`${domain}`}
              onChange={(value) => setChosen(Number(value))}
            />
          </p>
        )}
        <MapView mappings={mappings} reserved={RESERVED} onWalk={walkPage} />
      </section>
      <section aria-labelledby="walk-heading">
        <h2 id="walk-heading">Walk</h2>
        <WalkForm key={`${access.page} ${access.offset}`} access={access} onWalk={setAccess} />
        {flipped.length > 0 && (
          <p class="tools" role="status">
            {flipped.length === 1 ? "1 bit is flipped." : `${flipped.length} bits are flipped.`}
            {" "}
            The next request restores them.{" "}
            <button
              type="button"
              onClick={() => {
                playground.restore();
                changed();
              }}
            >
              Restore now
            </button>
          </p>
        )}
        <div class="columns">
          {endpoints.map((endpoint) => (
            <WalkView
              key={endpoint.id}
              playground={playground}
              endpoint={endpoint}
              access={access}
              onFlip={(at, bit) => {
                playground.flip(at, bit);
                changed();
              }}
            />
          ))}
        </div>
      </section>
      <section aria-labelledby="tables-heading">
        <h2 id="tables-heading">Tables</h2>
        <div class="columns">
          {endpoints.map((endpoint) => (
            <TreeView
              key={endpoint.id}
              playground={playground}
              endpoint={endpoint}
              onWalk={(address) => walkPage(Number(address / BigInt(PAGE_SIZE)))}
            />
          ))}
        </div>
      </section>
    </main>
  );
}

/** Which formats are shown. */
function Formats(
  { shown, onChange }: {
    readonly shown: readonly number[];
    readonly onChange: (shown: readonly number[]) => void;
  },
): VNode {
  return (
    <fieldset>
      <legend>Formats</legend>
      {ENDPOINTS.map(({ id, name }) => (
        <label key={id} class="check">
          <input
            type="checkbox"
            checked={shown.includes(id)}
            onChange={(event) => {
              const others = shown.filter((each) => each !== id);
              onChange(event.currentTarget.checked ? [...others, id] : others);
            }}
          />
          {name}
        </label>
      ))}
    </fieldset>
  );
}

/** The access that is walked, as a form. */
function WalkForm(
  { access, onWalk }: {
    readonly access: Access;
    readonly onWalk: (access: Access) => void;
  },
): VNode {
  const [problem, setProblem] = useState("");
  return (
    <form
      aria-label="Walk"
      onSubmit={(event) => {
        event.preventDefault();
        const form = event.currentTarget;
        try {
          const { page, offset } = addressOf(textOf(form, "walk-address"));
          setProblem("");
          onWalk({ page, offset, permission: Number(textOf(form, "walk-access")) });
        } catch (error) {
          if (!(error instanceof RangeError)) throw error;
          setProblem(error.message);
        }
      }}
    >
      <label>
        address
        <input
          name="walk-address"
          defaultValue={addressText(access.page, access.offset)}
          autocomplete="off"
          spellcheck={false}
          size={18}
        />
      </label>
      <Choice
        name="walk-access"
        label="access"
        options={[[`${READ}`, "read"], [`${WRITE}`, "write"]]}
        value={`${access.permission}`}
        onChange={(value) => onWalk({ ...access, permission: Number(value) })}
      />
      <button type="submit">Walk</button>
      <output class="problem" role="alert">{problem}</output>
    </form>
  );
}
