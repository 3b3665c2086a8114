/** How to stop waiting. */
export interface Cancel {
    /** When it is aborted, the call rejects with its reason. What the call began goes on, unless it says otherwise. */
    signal?: AbortSignal | undefined;
}
